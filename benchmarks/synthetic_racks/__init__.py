"""Provide benchmark racks with hidden parameters, and methods that search on them."""
