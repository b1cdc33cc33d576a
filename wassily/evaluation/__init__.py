"""Scores of target fit and retention.

May import `training_data`, `encodings`, `generation`, `models`, `data`, `runtime`, `config`,
`files`, `maths`.
"""
