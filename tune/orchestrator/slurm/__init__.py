"""Run an orchestrator inside a Slurm job."""
