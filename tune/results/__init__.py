"""What a run leaves behind: LoadGen's logs, per-request arrays, the measurement and its verdict."""
