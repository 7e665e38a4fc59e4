"""Images beside masks, a few of them labelled: the reader, its mapper, and data sets of worms."""
