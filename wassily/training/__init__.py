"""One training: its set-up, its loop, its checkpoints, its validations.

May import every room but `commands`, `studio` and `mini`.
"""
