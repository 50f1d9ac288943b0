"""Fit the simulator's calibration to measured runs."""
