"""PosSAM: open-vocabulary panoptic segmentation from an image and words (arXiv 2403.09620)."""
