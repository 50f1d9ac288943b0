"""Render a trial as text: its engine's files, its processes, the job that starts and stops them."""
