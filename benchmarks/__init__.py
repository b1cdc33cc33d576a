"""Measurements of speed, memory and start-up; see README.md."""

import wassily  # noqa: F401  # before torch, whose threads are told how to wait
