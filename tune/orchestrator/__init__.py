"""Run one attempt of a trial on its nodes and leave nothing behind."""
