"""The parts of the demo: what every method needs to be run, and one file per method."""
