"""What a sound is like, in words: MuQ-MuLan tags, Qwen2-Audio prose, tempo.

May import: hub.
"""
