#!/usr/bin/env python3
"""`detectron2-sam prepare cocoa`, from a clone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from detectron2_sam.program import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "cocoa", *sys.argv[1:]]))
