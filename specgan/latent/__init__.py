"""The points of a checkpoint's latent space: of classes and mixes, the nearest to a recording, and ways from there.

May import: audio, spectrogram, models.
"""

from specgan.latent.mixing import class_points
from specgan.latent.points import Encoded, Point
from specgan.latent.space import LatentSpace
from specgan.latent.steering import Steering

__all__ = ["Encoded", "LatentSpace", "Point", "Steering", "class_points"]
