"""What one run does: train, sample, score, count.

Read these first: `recipe.py` (what decides a result), `run.py` (train -> sample -> evaluate), `train.py`.
Importing this package imports nothing heavy.
"""
