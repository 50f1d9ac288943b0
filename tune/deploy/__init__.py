"""A trial as text: engine YAML, the processes of its deployment, the job that starts and stops them."""
