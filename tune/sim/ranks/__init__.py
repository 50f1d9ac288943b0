"""Serve workers with attention data parallelism, whose ranks have queues and KV caches of their own."""
