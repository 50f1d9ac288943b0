"""Write the sections of a study's page."""
