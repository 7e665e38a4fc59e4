"""The benchmarks of open-vocabulary semantic segmentation."""
