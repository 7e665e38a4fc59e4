"""Training, checkpoints and evaluation, on one device or many."""
