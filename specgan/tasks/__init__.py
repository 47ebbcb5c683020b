"""What preprocess.py runs, one task a file.

May import: audio, spectrogram, vocoders, batch, captions, codec, data, clips, pictures.
"""
