"""A long recording to clips: where it is cut, and their files.

May import: audio.
"""
