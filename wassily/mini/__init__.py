"""The bundled small model.

Imports nothing of wassily but the errors.
"""
