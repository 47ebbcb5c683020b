"""The HTTP service and its page: python -m specgan.server.

May import: command_line, audio, generation, latent, models, pictures.
"""
