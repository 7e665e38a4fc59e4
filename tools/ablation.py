#!/usr/bin/env python3
"""`detectron2-sam reproduce` on the CPU, from a clone; `--rows YAML` is its `--table`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from detectron2_sam.program import main

if __name__ == "__main__":
    sys.exit(main(["reproduce", "--device", "cpu", *sys.argv[1:]]))
