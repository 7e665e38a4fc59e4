"""Prediction of many pictures and videos, whatever the kind of model: a broken file is named, the others are done."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from tqdm import tqdm

from amsam.prediction import LabelsTask
from detectron2_sam.commands.predict import VOCABULARIES
from detectron2_sam.commands.predict.inputs import find_inputs
from detectron2_sam.commands.predict.video import LONGEST_STILL, VideoReader, VideoWriter
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
from sam_common.text import one_line


def main(args: argparse.Namespace) -> int:
    """Returns the exit status: 1 if a file could not be predicted; the others are done all the same."""
    if args.vocabulary in VOCABULARIES:
        args.vocabulary = str(resource(f"configs/vocabularies/{args.vocabulary}.txt"))
    output = Path(args.output)
    found = find_inputs(args.input, recursive=args.recursive, leave_out=output)
    inputs = found.inputs
    task = make_task(args, inputs)
    refuse_to_overwrite(inputs, task.files.written)
    if not args.overwrite:
        refuse_to_replace(inputs, task)
    task.load()
    _make_folder(output)
    with stop_on_signals() as stop:
        run = Run(task, stop, len(inputs))
        broken = found.unreadable + run.predict_all(inputs)
    if stop.signum:
        raise Interrupted(f"stopped; what was done is in {output}", stop.signum)
    if found.unreadable or (broken and len(inputs) > 1):
        count = len(inputs) + len(found.unreadable)
        print(f"error: {len(broken)} of {count} inputs could not be predicted:", *broken, sep="\n  ", file=sys.stderr)
    if found.skipped:
        print(found.describe_skipped(), file=sys.stderr)
    return 1 if broken else 0


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to --output {path}: {error.strerror}; choose another folder") from error


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
        try:
            found, fault = self.predict_video(source) if source.is_video else self.predict_image(number, source)
        except Exception as error:  # whatever happens to one file, the others are done
            if _ends_the_run(error):
                raise
            found, fault = "", _line(source, error)
        if found:
            tqdm.write(one_line(f"{count}{found} → {self.task.files.written(source)[0]}"), file=sys.stdout)
        if not fault:
            return []
        tqdm.write(f"{count}error: {fault}", file=sys.stderr)
        return [fault]

    def predict_image(self, number: int, source: Input) -> tuple[str, str]:
        """What was found in words, and what is wrong with the file; one of them is empty."""
        try:
            found = self.task.look(read_image(source.path), source)
        except Exception as error:
            return "", _line(source, error)
        self.task.files.add(number, source, found)
        return found.describe(), ""

    def predict_video(self, source: Input) -> tuple[str, str]:
        """How many frames were done, and what is wrong with the file; what was read of a broken one is kept."""
        try:
            reader = VideoReader(source.path)
        except Exception as error:
            return "", _line(source, error)
        video, lines = self.task.files.written(source)
        with (
            reader,
            atomic_path(lines) as lines_path,
            atomic_path(video) as video_path,
            open(lines_path, "w", encoding="utf-8") as file,
            VideoWriter(video_path, fps=reader.fps) as writer,
        ):
            number, fault = self._predict_frames(source, reader, writer, file)
        told = f"{number} frames, {reader.times[number - 1] + 1 / reader.fps:.1f} s"
        if reader.is_still:
            told += f" (in the written video no frame stays for more than {LONGEST_STILL:.0f} s)"
        return told, fault or reader.fault

    def _predict_frames(self, source: Input, reader: VideoReader, writer: VideoWriter, file: TextIO) -> tuple[int, str]:
        """How many frames were done, and what ended it early, if anything did.

        Raises:
            UserError: that was the first of them.
        """
        header = {"video": source.relative, "fps": reader.fps, "task": self.task.name}
        file.write(json.dumps(header | self.task.describe_video()) + "\n")
        total = len(reader.times)
        number = 0
        for frame in tqdm(reader, source.name, total, leave=False, unit="frame", disable=None):
            try:
                found = self.task.look(image_tensor(frame), source)
                drawn, segments = np.asarray(found.draw()), found.to_coco()
            except Exception as error:
                fault = f"{_line(source, error)} (frame {number})"
                if number == 0:
                    raise UserError(fault) from None
                return number, fault
            writer.write(drawn, reader.copies[number])
            line = {"frame": number, "time": round(reader.times[number], 4), "segments": segments}
            file.write(json.dumps(line) + "\n")
            number += 1
            if self.stop.signum:
                break
        return number, ""


_OF_ONE_NAME = (
    *(errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST),
    *(errno.ENOTEMPTY, errno.EILSEQ, errno.EINVAL, errno.ELOOP),
)
"""Why one result cannot be written while others can."""


def _ends_the_run(error: Exception) -> bool:
    """Whether no other result could be written either: the disk is full, or the folder must not be written to."""
    cause = error.__cause__ if isinstance(error, UserError) else error
    return isinstance(cause, OSError) and cause.errno not in _OF_ONE_NAME


def _line(source: Input, error: Exception) -> str:
    """What happened to a file, in one line that names it."""
    text, path = " ".join(str(error).split()), one_line(str(source.path))
    if not isinstance(error, UserError):
        text = f"{type(error).__name__}: {textwrap.shorten(text, 300)}"
    return one_line(text if path in text else f"{path}: {text}")


def refuse_to_replace(inputs: Sequence[Input], task: Task) -> None:
    """Raises UserError where a file is there that the run would write."""
    files = task.files
    summaries = () if all(source.is_video for source in inputs) else files.summaries
    paths = [
        *(path for source in inputs for path in files.written(source)),
        *(files.folder / name for name in summaries),
    ]
    there = [path for path in paths if os.path.lexists(path)]
    if there:
        count = f"{len(there)} files, {there[0]} the first of them" if len(there) > 1 else str(there[0])
        raise UserError(f"this would replace {count}; choose another --output, or add --overwrite")
