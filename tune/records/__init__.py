"""Read and write what a study leaves on disk: one module a record."""
