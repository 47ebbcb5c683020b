"""Spectrograms as pictures and videos, and pages of them.

May import: audio, spectrogram.
"""
