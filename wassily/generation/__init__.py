"""From a prompt to an image: pipelines, conditions, generation, metadata.

May import `models`, `data`, `runtime`, `config`, `maths`.
"""
