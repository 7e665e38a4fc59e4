"""Finds the classes you name in your pictures and videos, and writes what it found in COCO's formats.

python tools/predict.py --config-file configs/possam_T.yaml --weights output/demo/possam/model_final.pth \\
    --input street.jpg holiday/ "clips/*.mp4" --vocabulary "dog|puppy, cat; sky, grass:stuff" --output out

`;` separates groups, `,` classes, `|` the synonyms of a class; the suffix `:stuff` binds its group (default: things). A
file with the same grammar does as well. Without --vocabulary the classes of the training are looked for.

Each picture becomes out/street.png, the picture with words, at its path below the folder that all inputs share; a video
becomes out/clip.mp4 and out/clip.jsonl: a line about the video, then one for each frame with its masks as COCO RLE.
    --task panoptic   out/panoptic/street.png, the segment ids (R + 256 G + 65536 B), and one out/panoptic.json
    --task semantic   out/semantic/street.png, the indices of the classes, and one out/semantic.json
    --task instance   out/instances.json, COCO results with masks as RLE, and out/images.json that they refer to

Exit status: 0 done; 1 done, but for files that could not be read, listed at the end; 2 a mistake in what was given;
128 + N stopped by signal N, what was done is written.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from possam.possam import PosSAM
from sam_common.data.images import read_image
from sam_common.data.vocabulary_file import parse_vocabulary
from sam_common.engine.launch import Interrupted, StopFlag, stop_on_signals
from sam_common.errors import UserError
from sam_common.files import atomic_path
from sam_common.inputs import Input, find_inputs
from sam_common.prediction_files import TASKS, PredictionFiles, as_panoptic, coco_masks
from sam_common.predictor import Panoptic, Predictor, coco_json
from sam_common.structures import Vocabulary
from sam_common.tool import ToolParser, run_tool
from sam_common.video import VideoReader, VideoWriter
from sam_common.visualize import draw_panoptic

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the modules of tools/, which is not installed

from tools.methods import full_cfg, register_all

SWITCHES = {"panoptic": "PANOPTIC_ON", "semantic": "SEMANTIC_LABELS_ON", "instance": "INSTANCE_ON"}
"""Task -> the key of `MODEL.POSSAM.TEST` that makes what it needs."""

THRESHOLDS = {"panoptic": 0.0, "semantic": 0.0, "instance": 0.5}
"""Task -> default of --confidence-threshold; pixels compete in the first two, so nothing need be dropped."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 if a file could not be read; the others are done all the same."""
    args = parse_arguments(argv)
    output = Path(args.output)
    inputs, unreadable = find_inputs(args.input, recursive=args.recursive, leave_out=output)
    asked = parse_vocabulary(args.vocabulary) if args.vocabulary is not None else None
    refuse_to_overwrite(inputs, PredictionFiles(output, args.task, ()))
    register_all()
    cfg = full_cfg()
    options = list(args.opts)
    for task, key in SWITCHES.items():
        options += [f"MODEL.POSSAM.TEST.{key}", str(task == args.task)]
    predictor = Predictor.from_config(args.config_file, weights=args.weights, options=options, cfg=cfg)
    vocabulary = predictor.vocabulary_or_default(asked)
    warn_of_unknown_words(predictor.model, vocabulary)
    files = PredictionFiles(output, args.task, vocabulary)
    with stop_on_signals() as stop:
        run = Run(predictor, files, args.confidence_threshold, stop, len(inputs))
        broken = unreadable + run.predict_all(inputs)
    if stop.signum:
        raise Interrupted(f"stopped; what was done is in {output}", stop.signum)
    if unreadable or (broken and len(inputs) > 1):
        count = len(inputs) + len(unreadable)
        print(f"error: {len(broken)} of {count} inputs could not be read:", *broken, sep="\n  ", file=sys.stderr)
    return 1 if broken else 0


@dataclass
class Run:
    """One run of the tool: what predicts, where results go, what stops it."""

    predictor: Predictor
    files: PredictionFiles
    confidence_threshold: float
    stop: StopFlag
    num_inputs: int

    def predict_all(self, inputs: Sequence[Input]) -> list[str]:
        """Predicts input after input, one line each, then writes the JSON of all; one line for each broken file."""
        broken: list[str] = []
        try:
            with tqdm(inputs, unit="file", disable=True if len(inputs) == 1 else None) as progress:  # None: no terminal
                for number, source in enumerate(progress, start=1):
                    if self.stop.signum:
                        break
                    broken += self._predict_one(number, source)
        finally:  # whatever ends the run, what was done is kept
            self.files.finish()
        return broken

    def _predict_one(self, number: int, source: Input) -> list[str]:
        """The line about a broken file, if it is one."""
        count = f"[{number}/{self.num_inputs}] " if self.num_inputs > 1 else ""
        found, fault = self.predict_video(source) if source.is_video else self.predict_image(number, source)
        if found:
            tqdm.write(f"{count}{found} → {self.files.written(source)[0]}", file=sys.stdout)
        if not fault:
            return []
        tqdm.write(f"{count}error: {fault}", file=sys.stderr)
        return [fault]

    def predict_image(self, number: int, source: Input) -> tuple[str, str]:
        """What was found in words, and what is wrong with the file; one of them is empty."""
        try:
            image = read_image(source.path)
        except UserError as error:
            return "", str(error)
        outputs, panoptic, picture = self._predict(image)
        with atomic_path(self.files.written(source)[0]) as path:
            Image.fromarray(picture).save(path)
        self.files.add(number, source, outputs)
        return describe(panoptic, self.files.vocabulary, count=self.files.task != "semantic"), ""

    def predict_video(self, source: Input) -> tuple[str, str]:
        """How many frames were done, and what is wrong with the file; what was read of a broken one is kept."""
        try:
            reader = VideoReader(source.path)
        except UserError as error:
            return "", str(error)
        video, lines = self.files.written(source)
        with (
            reader,
            atomic_path(lines) as lines_path,
            atomic_path(video) as video_path,
            open(lines_path, "w", encoding="utf-8") as file,
            VideoWriter(video_path, fps=reader.fps) as writer,
        ):
            self._predict_frames(source, reader, writer, file)
        return f"{writer.num_frames} frames, {writer.num_frames / reader.fps:.1f} s", reader.fault

    def _predict_frames(self, source: Input, reader: VideoReader, writer: VideoWriter, file: TextIO) -> None:
        vocabulary = self.files.vocabulary
        header = {"video": source.relative, "fps": reader.fps, "task": self.files.task}
        file.write(json.dumps(header | {"categories": coco_json([], [], vocabulary)["categories"]}) + "\n")
        total = reader.num_frames or None
        for number, frame in enumerate(tqdm(reader, source.name, total, leave=False, unit="frame", disable=None)):
            outputs, _, picture = self._predict(frame)
            writer.write(picture)
            segments = coco_masks(outputs, self.files.task, vocabulary)
            line = {"frame": number, "time": round(number / reader.fps, 4), "segments": segments}
            file.write(json.dumps(line) + "\n")
            if self.stop.signum:
                break

    def _predict(self, image: Any) -> tuple[dict[str, Any], Panoptic, Any]:
        vocabulary = self.files.vocabulary
        outputs = self.predictor(image, vocabulary, confidence_threshold=self.confidence_threshold)
        ids, segments = as_panoptic(outputs, self.files.task)
        pixels = image.permute(1, 2, 0).numpy() if isinstance(image, Tensor) else image
        return outputs, (ids, segments), draw_panoptic(pixels, ids.cpu().numpy(), segments, vocabulary)


def refuse_to_overwrite(inputs: Sequence[Input], files: PredictionFiles) -> None:
    """Raises UserError where a result would take the place of an input, or of another result."""
    sources = {os.path.realpath(source.path) for source in inputs}
    owner: dict[Path, Input] = {}
    for source in inputs:
        for path in files.written(source):
            if os.path.realpath(path) in sources:
                raise UserError(
                    f"the result of {source.path} would overwrite the input {path}; choose another --output"
                )
            if path in owner:
                raise UserError(
                    f"{source.path} and {owner[path].path} would both write {path}; predict one of them apart"
                )
            owner[path] = source


def describe(panoptic: Panoptic, vocabulary: Vocabulary, *, count: bool = True) -> str:
    """What was found, in the order of the vocabulary, things counted if asked to: "3 dogs, sky, grass"."""
    counts = Counter(segment["category_id"] for segment in panoptic[1])
    found = []
    for index, category in enumerate(vocabulary):
        if counts[index] and category.is_thing and count:
            found.append(f"{counts[index]} {category.name if counts[index] == 1 else _plural(category.name)}")
        elif counts[index]:
            found.append(category.name)
    return ", ".join(found) or "nothing found"


def warn_of_unknown_words(model: nn.Module, vocabulary: Vocabulary) -> None:
    """One line for words that the model's text encoder never learned: it can only guess what they mean."""
    if not isinstance(model, PosSAM):
        return
    unknown = model.clip.unknown_words([word for category in vocabulary for word in category.synonyms])
    if unknown:
        some = ", ".join(unknown[:10]) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")
        print(f"warning: this model's text encoder has never met: {some}", file=sys.stderr)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="a YAML of configs/, or your own")
    parser.add_argument("--input", required=True, nargs="+", metavar="PATH", help="pictures, videos, folders, globs")
    parser.add_argument("--recursive", action="store_true", help="look into the subfolders of folders")
    parser.add_argument("--task", choices=TASKS, default="panoptic")
    parser.add_argument("--vocabulary", help='"dog|puppy, cat; sky, grass:stuff", or a file')
    parser.add_argument("--output", required=True, metavar="DIR", help="made if missing; files of the same name go")
    parser.add_argument(
        "--confidence-threshold",
        type=float,
        help="drop what scores less, 0..1 (default: 0.5 for instances, 0 for segments)",
    )
    parser.add_argument("--weights", default="", help="model_final.pth of a training run; random: untrained")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the configuration")
    args = parser.parse_intermixed_args(argv)
    if args.confidence_threshold is None:
        args.confidence_threshold = THRESHOLDS[args.task]
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
    sys.exit(run_tool(main))
