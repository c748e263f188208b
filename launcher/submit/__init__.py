"""From what a person asks to a job in Slurm's queue."""
