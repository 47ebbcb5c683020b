"""The points of a checkpoint's latent space: of classes and mixes, the nearest to a recording, and ways from there.

May import: audio, spectrogram, models.
"""

from specgan.latent.descriptors import DESCRIPTORS
from specgan.latent.mixing import class_points
from specgan.latent.points import Encoded, Point
from specgan.latent.space import LatentSpace
from specgan.latent.steering import Spread, Steered, Steering

__all__ = ["DESCRIPTORS", "Encoded", "LatentSpace", "Point", "Spread", "Steered", "Steering", "class_points"]
