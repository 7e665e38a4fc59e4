"""PLUG: amodal segmentation with SAM, two LoRA branches and uncertainty."""
