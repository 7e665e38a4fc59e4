"""The generated world: a deterministic data set that any machine can make, in the official formats."""
