"""A real Slurm cluster on one machine, with faults to inject: the test bed and the embedded default."""
