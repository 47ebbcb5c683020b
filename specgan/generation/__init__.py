"""A checkpoint -> sounds in a folder.

May import: audio, spectrogram, vocoders, models, latent, batch, pictures.
"""

from specgan.generation.drawing import PAGE_NAME, class_folders, generate
from specgan.generation.sound import SoundFiles, make_vocoder, sound_info, vocode, write_sound

__all__ = [
    "PAGE_NAME",
    "SoundFiles",
    "class_folders",
    "generate",
    "make_vocoder",
    "sound_info",
    "vocode",
    "write_sound",
]
