"""Learn the simulator's parameters from trials and suggest the next one by Bayesian optimisation."""
