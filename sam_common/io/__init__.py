"""Files: inputs, atomic writes, weights, and what ships with the project."""
