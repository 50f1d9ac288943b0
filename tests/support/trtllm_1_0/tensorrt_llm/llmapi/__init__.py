"""Hold the API of mid 2025."""
