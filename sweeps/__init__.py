"""Which runs, and where: YAML studies, their expansion into recipes, and launching through submitit.

Read these first: `digits.yaml` (a study), `expand.py` (study -> recipes), `launch.py` (recipes -> jobs).
Importing this package imports neither torch nor submitit.
"""
