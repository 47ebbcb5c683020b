"""The points of a checkpoint's latent space: a recording -> the point of its nearest sound, and points around it.

May import: audio, spectrogram, models.
"""

from specgan.latent.points import Encoded, Point
from specgan.latent.space import LatentSpace

__all__ = ["Encoded", "LatentSpace", "Point"]
