"""Where the files of the data sets come from that are known by name, for whoever has to get them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """The pages that one downloads from, and the script of `datasets/` that makes or counts the rest, or ""."""

    pages: tuple[str, ...]
    script: str


_COCO = "https://cocodataset.org/#download"
_SOURCES = {
    "generated": Source((), "prepare_generated.py"),
    "cocoa": Source((_COCO, "https://github.com/Wakeupbuddy/amodalAPI"), "prepare_cocoa.py"),
    "cocoa_cls": Source((_COCO, "https://github.com/UARK-AICV/AISFormer"), "prepare_cocoa.py"),
    "coco": Source((_COCO,), "prepare_coco.py"),
    "ade20k_full": Source(("https://ade20k.csail.mit.edu/",), "prepare_ade20k_full.py"),
    "ade20k": Source(("http://sceneparsing.csail.mit.edu/",), "prepare_ade20k.py"),
    "openvocab_pascal_ctx": Source(
        ("http://host.robots.ox.ac.uk/pascal/VOC/", "https://www.cs.stanford.edu/~roozbeh/pascal-context/"),
        "prepare_pascal_context.py",
    ),
    "openvocab_pascal": Source(("http://host.robots.ox.ac.uk/pascal/VOC/",), "prepare_pascal_voc.py"),
    "kins": Source(
        (
            "https://github.com/qqlu/Amodal-Instance-Segmentation-through-KINS-Dataset",
            "http://www.cvlibs.net/datasets/kitti/eval_object.php?obj_benchmark=2d",
        ),
        "prepare_kins.py",
    ),
    "human_segmentation": Source(("https://github.com/VikramShenoy97/Human-Segmentation-Dataset",), ""),
    "tiktok": Source(("https://www.kaggle.com/datasets/tapakah68/segmentation-full-body-tiktok-dancing-dataset",), ""),
    "isic2018": Source(("https://challenge.isic-archive.com/data/#2018",), ""),
}
"""How the names of a family of data sets begin; of several that fit the longest counts."""


def source_of(name: str) -> Source | None:
    """Where the data set of that name comes from; None for one of the user's own."""
    fits = [family for family in _SOURCES if name.startswith(family)]
    return _SOURCES[max(fits, key=len)] if fits else None


def where_to_get(name: str) -> str:
    """What to do where files of that data set are missing, in one line."""
    source = source_of(name)
    if source is None:
        return "correct its entry in DATASETS.REGISTER, or put the file there"
    script = f"python datasets/{source.script}" if source.script else ""
    if not source.pages:
        return script
    return f"get {' and '.join(source.pages)}, laid out as in datasets/README.md{script and f', then {script}'}"
