"""`trainmaster health validate`: deep checks of many nodes as a Slurm job, and what follows for their drains."""
