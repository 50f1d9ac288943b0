"""Read recipes of other programs, and write them as a folder of configuration."""
