"""Amodal annotations: readers of the published formats, checks, and the mapper."""
