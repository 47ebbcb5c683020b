"""Work on many files: workers, progress, failures, and going on where a run before was stopped.

May import: nothing of ours but files.
"""
