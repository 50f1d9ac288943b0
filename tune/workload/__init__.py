"""Draw the requests of a run: arrival times, prompt and answer lengths, the benchmark's dataset."""
