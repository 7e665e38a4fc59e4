"""Metrics, each an evaluator of one kind of output."""
