"""The data sets of the few-shot papers by name, with their splits (BLO-SAM, AM-SAM).

    tiktok_{train,test}               TikTok full body: 2,615 images, the last 2,000 are the test set
    human_segmentation_{train,test}   Vikram Shenoy's: 290 images, numbers 1 … 289 and 300; above 200 is the test set
    isic2018_{train,val,test}         ISIC 2018, task 1: 2,594, 100 and 1,000 images in folders of their own

The papers speak of 300 images of human segmentation and a test set of 100; its repository lacks 290 … 299. A folder
that holds another number of images is read all the same; a warning says that the split is not the paper's.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from amsam.data.image_masks import Choose, image_masks_spec, natural_order
from amsam.data.worms import worm_specs
from sam_common.data.dataset_spec import DatasetSpec, Source, warn_of_count
from sam_common.structures import Category

_TIKTOK = "segmentation_full_body_tik_tok_2615_img"
_SOURCES = {
    "tiktok": Source(("https://www.kaggle.com/datasets/tapakah68/segmentation-full-body-tiktok-dancing-dataset",)),
    "human_segmentation": Source(("https://github.com/VikramShenoy97/Human-Segmentation-Dataset",)),
    "isic2018": Source(("https://challenge.isic-archive.com/data/#2018",)),
}
_ISIC = {"train": ("Training", 2594), "val": ("Validation", 100), "test": ("Test", 1000)}


def datasets(root: Path) -> list[DatasetSpec]:
    """All of them, and the generated worms, under `root`. Nothing is read before use."""
    nested = root / _TIKTOK / _TIKTOK  # as the archive unpacks
    tiktok = nested if nested.is_dir() else root / _TIKTOK
    human, isic = root / "Human-Segmentation-Dataset", root / "ISIC2018"
    specs = []
    for name, images, masks, total, train, test in (
        ("tiktok", tiktok / "images", tiktok / "masks", 2615, lambda stems: stems[:-2000], lambda stems: stems[-2000:]),
        ("human_segmentation", human / "Training_Images", human / "Ground_Truth", 290, _up_to_200, _above_200),
    ):
        for split, part in (("train", train), ("test", test)):
            choose = partial(_part, f"{name}_{split}", part, total)
            spec = image_masks_spec(f"{name}_{split}", images=images, masks=masks, choose=choose)
            specs.append(_named(spec, "person", _SOURCES[name]))
    for split, (folder, total) in _ISIC.items():
        spec = image_masks_spec(
            f"isic2018_{split}",
            images=isic / f"ISIC2018_Task1-2_{folder}_Input",
            masks=isic / f"ISIC2018_Task1_{folder}_GroundTruth",
            mask_suffix="_segmentation",
            choose=partial(_part, f"isic2018_{split}", list, total),
        )
        specs.append(_named(spec, "lesion", _SOURCES["isic2018"]))
    return [*specs, *worm_specs(root)]


def _named(spec: DatasetSpec, word: str, source: Source) -> DatasetSpec:
    """The same data set, whose one class is called `word`."""
    return replace(spec, load_vocabulary=lambda: (Category(word, (word,)),), source=source)


def _part(name: str, part: Choose, total: int, stems: list[str]) -> list[str]:
    warn_of_count(name, len(stems), total)
    return part(stems)


def _above_200(stems: list[str]) -> list[str]:
    return [stem for stem in stems if natural_order(stem) > natural_order("200")]


def _up_to_200(stems: list[str]) -> list[str]:
    return [stem for stem in stems if natural_order(stem) <= natural_order("200")]
