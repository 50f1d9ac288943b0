"""Describe the processes of a deployment as data: a plan writes it, an orchestrator reads it."""
