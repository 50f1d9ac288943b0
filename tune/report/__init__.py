"""What people read of a study: one HTML page, and lines for a terminal."""
