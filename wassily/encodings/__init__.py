"""The encodings that the frozen networks make of the data, and their cache.

May import `models`, `data`, `runtime`, `config`, `files`, `maths`.
"""
