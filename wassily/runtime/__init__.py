"""Processes, devices, trackers, progress.

Imports nothing of wassily but the errors.
"""
