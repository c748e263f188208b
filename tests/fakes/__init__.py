"""Stand-ins for what tests must not wait for: Slurm's answers and the clock."""
