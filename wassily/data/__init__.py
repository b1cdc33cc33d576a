"""Images and captions: opening, folders, datasets, shards, order.

May import `maths`.
"""
