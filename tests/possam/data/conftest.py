"""The tiny panoptic data set, for the tests of readers and mappers."""

from tests.support.panoptic_tree import tree

__all__ = ["tree"]
