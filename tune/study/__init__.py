"""Run studies: suggest trials, run them, record them, and confirm the best ones."""
