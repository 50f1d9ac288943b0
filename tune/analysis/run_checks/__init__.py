"""Check whether what a live run measured is what was meant, from what the run left behind."""
