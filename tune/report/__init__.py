"""Render studies for people: one HTML page per study, and lines for a terminal."""
