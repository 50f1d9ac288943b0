"""Draw the figures of a study's page."""
