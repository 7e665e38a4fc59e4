"""The parts of `tools/ablation.py` and `tools/ablations.py`."""
