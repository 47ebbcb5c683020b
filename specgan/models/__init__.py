"""Networks, losses, the GAN and the classifier, and the checkpoint that training writes and generation reads.

May import: hub, spectrogram.
"""
