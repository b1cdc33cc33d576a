"""The parts of Kandinsky 2.2: names, loading, adapters, the Hugging Face Hub.

May import `config`, `files`, `maths`.
"""
