"""Data sets: what they are, readers of the common formats, mappers and the loader."""
