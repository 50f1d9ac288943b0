"""Turn the records of a probe into a measurement, a verdict, a bottleneck and a ranking."""
