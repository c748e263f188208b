"""Holds a cluster's Slurm configuration against every known trap, one rule a trap.

`facts.py` is what the rules look at; `from_files.py` and `from_cluster.py` gather it; `rules/` judge, purely.
"""
