"""Code in C that is compiled on the machine that runs it."""
