"""Find the serving configuration with the most output tokens/s per GPU under a latency SLO."""
