"""specgan: new sounds of a kind you have recordings of, from a class-conditional GAN on spectrograms."""

__version__ = "0.2.0"

_HOME = {
    "SpectrogramParams": "specgan.spectrogram",
    "load": "specgan.generation.loaded",
    "mel_spectrogram_db": "specgan.spectrogram",
    "render": "specgan.pictures.render",
}


def __getattr__(name: str):
    """Imports the public names when they are first used: `import specgan` alone loads nothing heavy."""
    if name not in _HOME:
        raise AttributeError(f"module 'specgan' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
