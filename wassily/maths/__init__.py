"""Pure maths: diffusion, losses, averages, randomness.

Imports nothing of wassily but the errors.
"""
