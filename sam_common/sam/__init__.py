"""The Segment Anything Model in sizes T, B, L and H.

Source: Kirillov et al., Segment Anything, arXiv 2304.02643; built on the modules of the `segment_anything` package.
"""
