"""Labelled spectrograms on disk, the batches that training takes from them, and the built-in drums.

May import: audio, spectrogram, sets.
"""
