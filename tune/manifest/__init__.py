"""Describe the processes of a deployment as data: what a plan says and an orchestrator reads."""
