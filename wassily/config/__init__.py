"""Every flag with its default, its help and its checks.

Imports nothing of wassily but the errors, and nothing heavy.
"""
