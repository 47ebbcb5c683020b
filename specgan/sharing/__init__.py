"""A trained generator to the Hugging Face hub, with a card: specgan push.

May import: command_line, hub, audio, spectrogram, models, generation, evaluation, survey.
"""

from specgan.sharing.pushing import push
from specgan.sharing.uploading import PushError

__all__ = ["PushError", "push"]
