"""Files that are complete or absent, locks, room on the disk.

Imports nothing of wassily but the errors.
"""
