"""Run trials: on the simulator, on this machine, as Slurm jobs."""
