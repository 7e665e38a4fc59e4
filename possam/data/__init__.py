"""The semantic benchmarks that names of classes are enough for."""
