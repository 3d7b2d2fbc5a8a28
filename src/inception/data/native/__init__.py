"""Loading in C, compiled where it runs."""
