"""A bundle as something that answers."""
