"""Training: one readable loop, its schedule, its checkpoint and its health."""
