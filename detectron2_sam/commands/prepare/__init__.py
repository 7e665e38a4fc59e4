"""Brings data sets into the form that the readers expect, one module for each that needs it."""
