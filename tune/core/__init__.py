"""Provide the base of all packages: array types, atomic files, compiled loops, log tails."""
