"""Define the typed settings of a trial and of a command, and the rules between them."""
