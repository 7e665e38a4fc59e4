"""Layers and wrappers that several models use."""
