"""An engine of this project's own for CPUs: C code, compiled on the machine that runs it."""
