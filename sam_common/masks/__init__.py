"""Masks in files: COCO's run lengths and panoptic PNGs."""
