"""From a job's description to its ranks: `JobSpec` -> sbatch text -> supervisor -> agents -> ranks."""
