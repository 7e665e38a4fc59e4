"""Packaging. Nothing is compiled; the package list is explicit so that `datasets/` and `tests/` are never installed."""

from setuptools import setup

setup(
    packages=[
        "amsam",
        "detectron2_sam",
        "plug",
        "possam",
        "sam_common",
        "sam_common.data",
        "sam_common.data.generated",
        "sam_common.engine",
        "sam_common.evaluation",
        "sam_common.layers",
        "sam_common.losses",
        "sam_common.sam",
        "sam_common.share.configs",
        "sam_common.share.configs.ablations",
        "sam_common.share.configs.detectron2",
        "sam_common.share.configs.reproduction",
        "sam_common.share.configs.vocabularies",
        "sam_common.share.weights",
    ],
    # In an installed package configs and the embedded weights live under sam_common/share; in a clone at the top level.
    package_dir={
        "sam_common.share.configs": "configs",
        "sam_common.share.configs.ablations": "configs/ablations",
        "sam_common.share.configs.detectron2": "configs/detectron2",
        "sam_common.share.configs.reproduction": "configs/reproduction",
        "sam_common.share.configs.vocabularies": "configs/vocabularies",
        "sam_common.share.weights": "weights",
    },
    package_data={
        "sam_common": ["*.cpp"],
        "sam_common.layers": ["*.cpp", "*.cu"],
        "sam_common.share.configs": ["*.yaml"],
        "sam_common.share.configs.ablations": ["*.yaml"],
        "sam_common.share.configs.detectron2": ["*.yaml"],
        "sam_common.share.configs.reproduction": ["*.yaml"],
        "sam_common.share.configs.vocabularies": ["*.txt"],
        "sam_common.share.weights": ["*.safetensors", "README.md"],
    },
)
