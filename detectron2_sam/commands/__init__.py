"""The program `detectron2-sam`: one module or package for each of its commands."""
