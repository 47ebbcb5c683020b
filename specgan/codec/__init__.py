"""Waveform <-> 16-bit pictures that hold magnitude and phase.

May import: audio, spectrogram.
"""
