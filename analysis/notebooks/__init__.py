"""Notebooks that read the shipped results: text (.md) for review, and the same executed (.ipynb)."""
