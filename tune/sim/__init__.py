"""Simulate disaggregated serving: arrivals, prefill pool, KV transfer, decode pool and frontend."""
