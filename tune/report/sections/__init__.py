"""Compute what each section of a study's page shows."""
