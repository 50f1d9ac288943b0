"""Run the actions of the command line."""
