"""One recording -> its spectrograms, as tensors, pictures or shards.

May import: audio, spectrogram, batch, sets, data, pictures.
"""
