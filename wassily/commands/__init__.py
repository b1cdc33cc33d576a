"""The commands without a room: cache, data check, demo, doctor, merge, sweep.

May import every room but `studio`.
"""
