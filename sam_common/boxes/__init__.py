"""Boxes that prompt a model: given, read from files, or found by a detector."""
