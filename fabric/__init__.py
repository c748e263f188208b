"""The InfiniBand fabric: discover, model, emit Slurm topology files, lint, place, order ranks, draw."""
