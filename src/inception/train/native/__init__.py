"""Training on CPUs with kernels of our own, in C, compiled where they run."""
