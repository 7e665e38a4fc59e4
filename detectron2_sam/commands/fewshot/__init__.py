"""The parts of tools/fewshot.py: what it is asked for and looks at first, and its report."""
