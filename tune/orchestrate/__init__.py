"""One attempt of a trial on its nodes: start, wait until ready, drive, stop, leave nothing behind."""
