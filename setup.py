"""Packaging. Nothing is compiled: kernels are built on the machine that runs them, where it has a compiler."""

from setuptools import find_packages, setup

SHARED = {  # in a clone at the top level, in an installed package under sam_common/share
    "sam_common.share.configs": "configs",
    "sam_common.share.configs.detectron2": "configs/detectron2",
    "sam_common.share.configs.tables": "configs/tables",
    "sam_common.share.configs.vocabularies": "configs/vocabularies",
    "sam_common.share.weights": "weights",
}

setup(
    packages=[*find_packages(exclude=["tests*", "weights*"]), *SHARED],
    package_dir=SHARED,
    package_data={"": ["*.cpp", "*.cu", "*.html", "*.css", "*.yaml", "*.txt", "*.safetensors", "py.typed"]},
)
