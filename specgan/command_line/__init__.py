"""The scripts at a terminal: what is typed, what is printed, and commands to copy.

May import: nothing of ours but files.
"""
