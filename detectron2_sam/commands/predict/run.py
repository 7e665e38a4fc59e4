"""Prediction of many pictures and videos, whatever the kind of model: a broken file is named, the others are done."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from tqdm import tqdm

from amsam.prediction import LabelsTask
from detectron2_sam.commands.predict import VOCABULARIES
from detectron2_sam.commands.predict.inputs import find_inputs
from detectron2_sam.commands.predict.video import VideoReader, VideoWriter
from detectron2_sam.methods import full_cfg, methods
from sam_common.config import one_of
from sam_common.data.images import read_image
from sam_common.errors import Interrupted, UserError
from sam_common.io.files import atomic_path
from sam_common.io.inputs import Input
from sam_common.io.resources import resource
from sam_common.prediction import Task, refuse_to_overwrite
from sam_common.predictor import image_tensor
from sam_common.signals import StopFlag, stop_on_signals


def main(args: argparse.Namespace) -> int:
    """Returns the exit status: 1 if a file could not be read; the others are done all the same."""
    if args.vocabulary in VOCABULARIES:
        args.vocabulary = str(resource(f"configs/vocabularies/{args.vocabulary}.txt"))
    output = Path(args.output)
    inputs, unreadable = find_inputs(args.input, recursive=args.recursive, leave_out=output)
    task = make_task(args, inputs)
    refuse_to_overwrite(inputs, task.files.written)
    if not args.overwrite:
        refuse_to_replace(inputs, task)
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
        return LabelsTask(args, inputs, None)
    if args.config_file is None:
        raise UserError("give the model: --config, or the --adapter of a few-shot training")
    cfg = full_cfg(args.config_file, args.opts)
    able = {method.name: method.prediction for method in methods() if method.prediction is not None}
    one_of("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, able)
    return able[cfg.MODEL.META_ARCHITECTURE](args, inputs, cfg)


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
            self.task.files.finish()
        return broken

    def _predict_one(self, number: int, source: Input) -> list[str]:
        """The line about a broken file, if it is one."""
        count = f"[{number}/{self.num_inputs}] " if self.num_inputs > 1 else ""
        found, fault = self.predict_video(source) if source.is_video else self.predict_image(number, source)
        if found:
            tqdm.write(f"{count}{found} → {self.task.files.written(source)[0]}", file=sys.stdout)
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
        self.task.files.add(number, source, found)
        return found.describe(), ""

    def predict_video(self, source: Input) -> tuple[str, str]:
        """How many frames were done, and what is wrong with the file; what was read of a broken one is kept."""
        try:
            reader = VideoReader(source.path)
        except UserError as error:
            return "", str(error)
        video, lines = self.task.files.written(source)
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
            writer.write(np.asarray(found.draw()))
            line = {"frame": number, "time": round(number / reader.fps, 4), "segments": found.to_coco()}
            file.write(json.dumps(line) + "\n")
            if self.stop.signum:
                break


def refuse_to_replace(inputs: Sequence[Input], task: Task) -> None:
    """Raises UserError where a file is there that the run would write."""
    files = task.files
    summaries = () if all(source.is_video for source in inputs) else files.summaries
    paths = [
        *(path for source in inputs for path in files.written(source)),
        *(files.folder / name for name in summaries),
    ]
    there = [path for path in paths if path.exists()]
    if there:
        count = f"{len(there)} files, {there[0]} the first of them" if len(there) > 1 else str(there[0])
        raise UserError(f"this would replace {count}; choose another --output, or add --overwrite")
