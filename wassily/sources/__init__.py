"""Datasets as the datasets library loads them, from their own files alone."""
