"""`python -m detectron2_sam` is the program `detectron2-sam`."""

import sys

from detectron2_sam.program import main

if __name__ == "__main__":
    sys.exit(main())
