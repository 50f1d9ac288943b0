"""The typed words of a trial, and the rules between them."""
