"""Draw what a run asks: arrival times, prompt and answer lengths, the benchmark's dataset."""
