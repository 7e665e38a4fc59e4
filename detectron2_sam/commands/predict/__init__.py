"""What `tools/predict.py` does with each picture: one module for models of words, one for models of boxes."""
