"""What a training takes: memory, disk, steps (`wassily plan`).

May import `training_data`, `models`, `runtime`, `config`, `maths`.
"""
