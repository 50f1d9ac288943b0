"""Run trials as Slurm jobs."""
