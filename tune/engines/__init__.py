"""Adapt inference engines: a package for each, behind the protocol of base.py; registry.py names them."""
