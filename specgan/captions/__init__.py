"""What a sound is like, in words: MuQ-MuLan tags, Qwen2-Audio prose, tempo.

May import: nothing of ours but files.
"""
