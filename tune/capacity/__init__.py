"""Search for the highest rate at which one deployment holds its SLO."""
