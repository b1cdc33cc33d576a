"""The data that a training reads: training images, held-out images, extra sources.

May import `encodings`, `generation`, `models`, `data`, `runtime`, `config`, `maths`.
"""
