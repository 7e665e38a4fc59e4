"""Command line tools; a package, since Detectron2 installs one of this name, which a plain folder would not hide."""
