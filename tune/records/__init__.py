"""Read and write the records of a study on disk, one module for each record."""
