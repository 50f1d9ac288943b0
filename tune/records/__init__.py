"""Read and write what a study leaves on disk, one module for each record."""
