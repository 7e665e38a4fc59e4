"""Finds the classes you name in your pictures and videos, or completes the objects in boxes; results in COCO's formats.

python tools/predict.py --config-file configs/possam_T.yaml --weights output/demo/possam/model_final.pth \\
    --input street.jpg holiday/ "clips/*.mp4" --vocabulary "dog|puppy, cat; sky, grass:stuff" --output out
python tools/predict.py --config-file configs/plug_T.yaml --weights output/demo/plug/model_final.pth \\
    --input street.jpg --box 10,20,110,220 --box 40,30,90,80 --output out
python tools/predict.py --adapter adapter.safetensors --input slides/ --detector NAME --output out

Words: `;` separates groups, `,` classes, `|` the synonyms of a class; the suffix `:stuff` binds its group (default:
things). A file with the same grammar does as well. Without --vocabulary the classes of the training are looked for.

Boxes x0,y0,x1,y1 are of visible parts, in pixels of the upright picture: --box for one picture, repeated for several
objects; --detector NAME (sam_common/boxes/detectors.py), for videos too, of which ultralytics:FILE.pt are AGPL-3.0; or
--boxes FILE, one of
    {"street.jpg": [[x0, y0, x1, y1], …]}    file,x0,y0,x1,y1[,score] (CSV)    COCO results, as instances.json below

Each picture becomes out/street.png, the picture with words, at its path below the folder that all inputs share; a video
becomes out/clip.mp4 and out/clip.jsonl: a line about the video, then one for each frame with its masks as COCO RLE.
    --task panoptic   out/panoptic/street.png, the segment ids (R + 256 G + 65536 B), and one out/panoptic.json
    --task semantic   out/semantic/street.png, the indices of the classes, and one out/semantic.json
    --task instance   out/instances.json, COCO results with masks as RLE, and out/images.json that they refer to
    boxes             out/amodal_results.json, COCO results of whole objects, their visible and hidden parts as RLE, and
                      out/images.json; in the picture what is hidden is hatched
    --adapter FILE    out/labels/street.png, the class of each pixel, 0 the background; a box, the detector's best, says
                      where to look, without one it is the whole picture

Exit status: 0 done; 1 done, but for files that could not be read, listed at the end; 2 a mistake in what was given;
128 + N stopped by signal N, what is done is written.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from PIL import Image
from tqdm import tqdm

from amsam.prediction import LabelsTask
from detectron2_sam.commands.cli import ToolParser
from detectron2_sam.commands.predict.video import VideoReader, VideoWriter
from detectron2_sam.methods import full_cfg, methods
from possam.prediction_files import TASKS
from possam.predictor import image_tensor, read_config
from sam_common.config import one_of
from sam_common.data.images import read_image
from sam_common.engine.launch import Interrupted, StopFlag, stop_on_signals
from sam_common.errors import UserError
from sam_common.io.files import atomic_path
from sam_common.io.inputs import Input, find_inputs
from sam_common.prediction import Task


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 if a file could not be read; the others are done all the same."""
    args = parse_arguments(argv)
    output = Path(args.output)
    inputs, unreadable = find_inputs(args.input, recursive=args.recursive, leave_out=output)
    methods()
    task = make_task(args, inputs)
    refuse_to_overwrite(inputs, task)
    task.load()
    with stop_on_signals() as stop:
        run = Run(task, stop, len(inputs))
        broken = unreadable + run.predict_all(inputs)
    if stop.signum:
        raise Interrupted(f"stopped; what was done is in {output}", stop.signum)
    if unreadable or (broken and len(inputs) > 1):
        count = len(inputs) + len(unreadable)
        print(f"error: {len(broken)} of {count} inputs could not be read:", *broken, sep="\n  ", file=sys.stderr)
    return 1 if broken else 0


def make_task(args: argparse.Namespace, inputs: list[Input]) -> Task:
    """What is done with each picture, by the kind of model that the command line names.

    Raises:
        UserError: it names none, or one that cannot predict.
    """
    if args.adapter is not None:
        return LabelsTask(args, inputs)
    if args.config_file is None:
        raise UserError("give the model: --config-file, or the --adapter of a few-shot training")
    cfg = read_config(args.config_file, args.opts, full_cfg())
    able = {method.name: method.prediction for method in methods() if method.prediction is not None}
    one_of("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, able)
    return able[cfg.MODEL.META_ARCHITECTURE](args, inputs)


@dataclass
class Run:
    """One run of the tool: what is done with each picture, and what stops it."""

    task: Task
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
            self.task.finish()
        return broken

    def _predict_one(self, number: int, source: Input) -> list[str]:
        """The line about a broken file, if it is one."""
        count = f"[{number}/{self.num_inputs}] " if self.num_inputs > 1 else ""
        found, fault = self.predict_video(source) if source.is_video else self.predict_image(number, source)
        if found:
            tqdm.write(f"{count}{found} → {self.task.written(source)[0]}", file=sys.stdout)
        if not fault:
            return []
        tqdm.write(f"{count}error: {fault}", file=sys.stderr)
        return [fault]

    def predict_image(self, number: int, source: Input) -> tuple[str, str]:
        """What was found in words, and what is wrong with the file; one of them is empty."""
        try:
            found = self.task.look(read_image(source.path), source)
        except UserError as error:
            return "", str(error)
        with atomic_path(self.task.written(source)[0]) as path:
            Image.fromarray(found.picture).save(path)
        self.task.add(number, source, found.outputs)
        return found.summary, ""

    def predict_video(self, source: Input) -> tuple[str, str]:
        """How many frames were done, and what is wrong with the file; what was read of a broken one is kept."""
        try:
            reader = VideoReader(source.path)
        except UserError as error:
            return "", str(error)
        video, lines = self.task.written(source)
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
        header = {"video": source.relative, "fps": reader.fps, "task": self.task.name}
        file.write(json.dumps(header | self.task.describe_video()) + "\n")
        total = reader.num_frames or None
        for number, frame in enumerate(tqdm(reader, source.name, total, leave=False, unit="frame", disable=None)):
            found = self.task.look(image_tensor(frame), source)
            writer.write(found.picture)
            segments = self.task.segments(found.outputs)
            line = {"frame": number, "time": round(number / reader.fps, 4), "segments": segments}
            file.write(json.dumps(line) + "\n")
            if self.stop.signum:
                break


def refuse_to_overwrite(inputs: Sequence[Input], task: Task) -> None:
    """Raises UserError where a result would take the place of an input, or of another result."""
    sources = {os.path.realpath(source.path) for source in inputs}
    owner: dict[Path, Input] = {}
    for source in inputs:
        for path in task.written(source):
            if os.path.realpath(path) in sources:
                raise UserError(
                    f"the result of {source.path} would overwrite the input {path}; choose another --output"
                )
            if path in owner:
                raise UserError(
                    f"{source.path} and {owner[path].path} would both write {path}; predict one of them apart"
                )
            owner[path] = source


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", help="a YAML of configs/, or your own")
    parser.add_argument("--adapter", metavar="FILE", help="of a few-shot training, in place of --config-file")
    parser.add_argument("--input", required=True, nargs="+", metavar="PATH", help="pictures, videos, folders, globs")
    parser.add_argument("--recursive", action="store_true", help="look into the subfolders of folders")
    parser.add_argument("--task", choices=TASKS, help="with words (default: panoptic)")
    parser.add_argument("--vocabulary", help='"dog|puppy, cat; sky, grass:stuff", or a file')
    parser.add_argument("--boxes", metavar="FILE", help="boxes of pictures: JSON, CSV or COCO results")
    parser.add_argument("--box", action="append", metavar="x0,y0,x1,y1", help="a box of the one picture; repeat it")
    parser.add_argument("--detector", metavar="NAME", help="such as fasterrcnn_resnet50_fpn_v2; see the module's text")
    parser.add_argument("--detector-weights", metavar="FILE", help="instead of its official ones; random: untrained")
    parser.add_argument("--output", required=True, metavar="DIR", help="made if missing; files of the same name go")
    parser.add_argument(
        "--confidence-threshold",
        type=float,
        help="drop what scores less, 0..1 (default: 0.5 for instances and boxes, 0 for segments)",
    )
    parser.add_argument("--weights", default="", help="model_final.pth of a training run; random: untrained")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the configuration")
    args = parser.parse_intermixed_args(argv)
    if args.confidence_threshold is not None and not 0 <= args.confidence_threshold <= 1:
        raise UserError(f"--confidence-threshold is {args.confidence_threshold:g}; it lies between 0 and 1")
    return args
