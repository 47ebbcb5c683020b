"""The HTTP service and its page: python -m specgan.server.

May import: audio, generation, models, pictures.
"""
