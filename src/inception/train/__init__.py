"""Recipe, loop, schedule, checkpoints."""
