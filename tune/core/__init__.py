"""Provide what every package stands on: array types, atomic files, compiled loops, log tails."""
