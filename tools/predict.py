"""Finds the classes you name in your images: a picture with words, and masks in the COCO panoptic format.

python tools/predict.py --config-file configs/possam_T.yaml --weights output/demo/possam/model_final.pth \\
    --input street.jpg --vocabulary "dog|puppy, cat; sky, grass:stuff" --output out

`;` separates groups, `,` classes, `|` the synonyms of a class; the suffix `:stuff` binds its group (default: things). A
file with the same grammar does as well. Without --vocabulary the classes of the training are looked for.

Besides out/street.png, the picture, there are out/panoptic/street.png, the segment ids (R + 256 G + 65536 B), and one
out/panoptic.json for all images. Images from several folders keep their paths below their common folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor, nn

from possam.config import add_possam_config, register
from possam.possam import PosSAM
from possam.vocabulary import parse_vocabulary
from sam_common.config import get_cfg
from sam_common.data.images import read_image, write_segment_ids
from sam_common.engine.launch import ToolParser
from sam_common.errors import UserError
from sam_common.files import atomic_path, write_text
from sam_common.predictor import Panoptic, Predictor, coco_json, coco_segments, keep_confident
from sam_common.structures import Vocabulary
from sam_common.visualize import draw_panoptic


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 2 if an image could not be read; the others are done all the same."""
    args = parse_arguments(argv)
    names = output_names(args.input)
    asked = parse_vocabulary(args.vocabulary) if args.vocabulary is not None else None
    register()
    cfg = get_cfg()
    add_possam_config(cfg)
    options = [*args.opts, "MODEL.POSSAM.TEST.PANOPTIC_ON", "True"]  # it is what is drawn here
    predictor = Predictor.from_config(args.config_file, weights=args.weights, options=options, cfg=cfg)
    vocabulary = predictor.vocabulary_or_default(asked)
    warn_of_unknown_words(predictor.model, vocabulary)
    return predict_all(predictor, names, vocabulary, Path(args.output), args.confidence_threshold)


def predict_all(
    predictor: Predictor, names: dict[str, str], vocabulary: Vocabulary, output: Path, threshold: float
) -> int:
    """Predicts image after image, one line each, and writes one JSON for all.

    Args:
        names: image file -> name of its outputs, see `output_names`.

    Returns:
        0, or 2 if an image could not be read.
    """
    images, annotations, broken = [], [], []
    for number, (source, name) in enumerate(names.items(), start=1):
        progress = f"[{number}/{len(names)}] " if len(names) > 1 else ""
        try:
            image = read_image(source)
        except UserError as error:
            print(f"{progress}error: {error}", file=sys.stderr, flush=True)
            broken.append(source)
            continue
        panoptic = keep_confident(predictor(image, vocabulary)["panoptic_seg"], threshold)
        write_pictures(output, name, image, panoptic, vocabulary)
        file_name = f"{name}{Path(source).suffix}"
        images.append({"id": number, "file_name": file_name, "height": image.shape[1], "width": image.shape[2]})
        segments = coco_segments(panoptic, vocabulary)
        annotations.append({"image_id": number, "file_name": f"{name}.png", "segments_info": segments})
        print(f"{progress}{describe(panoptic, vocabulary)} → {output / name}.png", flush=True)
    if images:
        write_text(output / "panoptic.json", json.dumps(coco_json(images, annotations, vocabulary)))
    if broken and len(names) > 1:
        print(f"error: {len(broken)} of {len(names)} images could not be read: {', '.join(broken)}", file=sys.stderr)
    return 2 if broken else 0


def output_names(inputs: Sequence[str]) -> dict[str, str]:
    """Input file -> what its outputs are called: its path below the common folder of all inputs, without the suffix.

    Raises:
        UserError: two inputs would write the same file.
    """
    paths = {source: Path(os.path.abspath(source)) for source in dict.fromkeys(inputs)}
    common = os.path.commonpath([path.parent for path in paths.values()])
    names = {source: path.relative_to(common).with_suffix("").as_posix() for source, path in paths.items()}
    written = Counter(file for name in names.values() for file in (name, f"panoptic/{name}"))
    for source, name in names.items():
        if written[name] > 1 or written[f"panoptic/{name}"] > 1:
            raise UserError(f"{source} and another input would both write {name}.png; rename one, or predict it apart")
    return names


def write_pictures(output: Path, name: str, image: Tensor, panoptic: Panoptic, vocabulary: Vocabulary) -> None:
    """The picture with words, and the id map."""
    ids, segments = panoptic
    picture = draw_panoptic(image.permute(1, 2, 0).numpy(), ids.cpu().numpy(), segments, vocabulary)
    with atomic_path(output / f"{name}.png") as path:
        Image.fromarray(picture).save(path)
    with atomic_path(output / "panoptic" / f"{name}.png") as path:
        write_segment_ids(path, ids)


def describe(panoptic: Panoptic, vocabulary: Vocabulary) -> str:
    """What was found, things counted, in the order of the vocabulary: "3 dogs, sky, grass"."""
    counts = Counter(segment["category_id"] for segment in panoptic[1])
    found = []
    for index, category in enumerate(vocabulary):
        if counts[index] == 1 and category.is_thing:
            found.append(f"1 {category.name}")
        elif counts[index] and category.is_thing:
            found.append(f"{counts[index]} {_plural(category.name)}")
        elif counts[index]:
            found.append(category.name)
    return ", ".join(found) or "nothing found"


def warn_of_unknown_words(model: nn.Module, vocabulary: Vocabulary) -> None:
    """One line for words that the model's text encoder never learned: it can only guess what they mean."""
    if not isinstance(model, PosSAM):
        return
    unknown = model.clip.unknown_words([word for category in vocabulary for word in category.synonyms])
    if unknown:
        print(f"warning: this model's text encoder has never met: {', '.join(unknown)}", file=sys.stderr)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="a YAML of configs/, or your own")
    parser.add_argument("--input", required=True, nargs="+", metavar="IMAGE")
    parser.add_argument("--vocabulary", help='"dog|puppy, cat; sky, grass:stuff", or a file')
    parser.add_argument("--output", required=True, metavar="DIR", help="made if missing; files of the same name go")
    parser.add_argument("--confidence-threshold", type=float, default=0.0, help="drop what scores less, 0..1")
    parser.add_argument("--weights", default="", help="model_final.pth of a training run; random: untrained")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the configuration")
    args = parser.parse_intermixed_args(argv)
    if not 0 <= args.confidence_threshold <= 1:
        raise UserError(f"--confidence-threshold is {args.confidence_threshold:g}; it lies between 0 and 1")
    return args


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as user_error:
        print(f"error: {user_error}", file=sys.stderr)
        sys.exit(2)
