"""Published data sets by name: fetched where they are missing, and their files with labels, groups and splits.

May import: hub.
"""
