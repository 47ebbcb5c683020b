"""Any audio file <-> waveform; the only place that decodes or encodes audio, and that knows which files are recordings.

May import: nothing of ours but files.
"""

from specgan.audio.decoders import AudioError
from specgan.audio.decoding import BLOCK_FRAMES, DOWNMIXES, AudioStream, load_audio, open_audio
from specgan.audio.encoding import (
    WAV_SUBTYPES,
    encode_flac,
    read_flac,
    save_flac,
    save_wav,
    scale_to_peak,
    subtype_of,
    write_flac,
)
from specgan.audio.listing import AUDIO_SUFFIXES, find_audio
from specgan.audio.origin import origin_note, origin_of, recording_id
from specgan.audio.resampling import at_rate, resample
from specgan.audio.results import note_results
from specgan.audio.wav import WavFacts, WavSettings

__all__ = [
    "AUDIO_SUFFIXES",
    "BLOCK_FRAMES",
    "DOWNMIXES",
    "WAV_SUBTYPES",
    "AudioError",
    "AudioStream",
    "WavFacts",
    "WavSettings",
    "at_rate",
    "encode_flac",
    "find_audio",
    "load_audio",
    "note_results",
    "open_audio",
    "origin_note",
    "origin_of",
    "read_flac",
    "recording_id",
    "resample",
    "save_flac",
    "save_wav",
    "scale_to_peak",
    "subtype_of",
    "write_flac",
]
