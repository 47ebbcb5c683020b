"""From spectrogram to waveform, by one contract, which `vocoder.Vocoder` helps to keep.

`vocoder(params, level_range)` gives a module for spectrograms of these settings and this level range. Its
`forward(spectrogram, *, seeds)` maps (B, 1, n_bins, n_frames) in [-1, 1] and B seeds to waveforms
(B, n_frames * hop_length), and (B, channels, n_bins, n_frames) to (B, channels, n_frames * hop_length). A waveform
depends on its own spectrogram and seed alone, not on the rest of the batch.

May import: hub, spectrogram.
"""
