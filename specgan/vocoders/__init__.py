"""From spectrogram to waveform, one contract: made with `params` and `level_range`, called with `seeds`.

May import: spectrogram.
"""
