"""What train.py does: its stages, what happens beside the training, and sweeps.

May import: command_line, audio, spectrogram, vocoders, models, latent, data, pictures, evaluation, survey, generation.
"""
