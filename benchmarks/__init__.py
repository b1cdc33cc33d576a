"""Measurements of speed, memory and start-up; see README.md."""
