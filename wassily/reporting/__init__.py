"""The log, the report, the model card, the next command.

May import `models`, `data`, `config`, `files`.
"""
