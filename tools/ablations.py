#!/usr/bin/env python3
"""`detectron2-sam reproduce --table embedded` on the CPU, from a clone; `--table` or `--rows` name others instead."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from detectron2_sam.program import main

if __name__ == "__main__":
    chosen = {"--table", "--rows", "--list"} & {word.partition("=")[0] for word in sys.argv}
    tables = [] if chosen else ["--table", "embedded"]
    sys.exit(main(["reproduce", "--device", "cpu", *tables, *sys.argv[1:]]))
