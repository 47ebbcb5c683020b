"""specgan: new sounds of a kind you have recordings of, from a class-conditional GAN on spectrograms."""

__version__ = "0.1.0"
