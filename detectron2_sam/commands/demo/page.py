"""The demo from its parsed command line to its page and its picture."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from detectron2_sam.commands.demo import METHODS, amsam, plug, possam, run
from detectron2_sam.commands.demo.run import Demo, device_name, duration
from detectron2_sam.commands.output_folder import claimed
from detectron2_sam.commands.prepare.generated import prepare
from detectron2_sam.methods import register_datasets
from sam_common.data import catalog
from sam_common.errors import UserError
from sam_common.io.files import atomic_path
from sam_common.reporting.page import Part, Report, write_report
from sam_common.reporting.run_files import read_json

DEMOS = dict(zip(METHODS, (possam.demo_possam, plug.demo_plug, amsam.demo_amsam), strict=True))
_PICTURES = 2  # of each method in picture.jpg


def main(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    demo = open_demo(args)
    with claimed(demo.output):
        return _run(demo, args.methods)


def _run(demo: Demo, methods: Sequence[str]) -> int:
    root = catalog.datasets_root()
    with demo.phase(
        "world", f"drawing {run.NUM_TRAIN:,} training and {run.NUM_TEST} test scenes into {root / 'generated'}"
    ):
        prepare(root, train=run.NUM_TRAIN, test=run.NUM_TEST)
    register_datasets(root)
    parts = [DEMOS[name](demo) for name in methods]
    with demo.phase("report", "writing the report"):
        write_report(demo.output / "report.html", build_report(demo, parts))
        write_picture(demo.output / "picture.jpg", parts)
    print(f"\n{demo.output / 'report.html'}: open it in a browser. {duration(sum(demo.seconds.values()))} in all.")
    return 0


def build_report(demo: Demo, parts: Sequence[Part]) -> Report:
    total = duration(sum(demo.seconds.values()))
    facts = [
        ("command", f"detectron2-sam demo --output {demo.output} --seed {demo.seed} --fraction {demo.fraction:g}"),
        ("configurations", f"{possam.CONFIG}, {plug.CONFIG}, {amsam.CONFIG}"),
        ("data", f"{run.NUM_TRAIN:,} training and {run.NUM_TEST} test scenes, 256 × 256, world seed 0"),
        ("training seed", str(demo.seed)),
        ("time", ", ".join(f"{name} {duration(seconds)}" for name, seconds in demo.seconds.items())),
        ("machine", f"{platform.machine()}, {os.cpu_count()} cores, {device_name()}"),
        ("software", f"Python {platform.python_version()}, PyTorch {torch.__version__}"),
        ("finished", time.strftime("%Y-%m-%d %H:%M %Z")),
    ]
    *others, last = (part.title for part in parts)
    names = " and ".join([", ".join(others), last] if others else [last])
    lead = f"Tiny models, trained on drawn scenes and tested on others: {total} from nothing to this page."
    return Report(f"{names} on a generated world", lead, parts, facts)


def write_picture(path: Path, parts: Sequence[Part], *, side: int = 400, gap: int = 10) -> None:
    """Some picture rows of each method, every picture `side` pixels wide under its title, on white, as one JPEG."""
    drawn = [(part.title, [row for section in part.sections for row in section.rows]) for part in parts]
    blocks = [(title, rows[:_PICTURES]) for title, rows in drawn if rows]
    columns = max((len(rows[0].pictures) for _, rows in blocks), default=1)
    height = gap + sum(3 * gap + (side + gap) * len(rows) for _, rows in blocks)
    sheet = Image.new("RGB", ((side + gap) * columns + gap, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=20)
    top = gap
    for name, rows in blocks:
        for column, picture in enumerate(rows[0].pictures):
            title = f"{name}: {picture.title.lower()}" if column == 0 else picture.title
            draw.text((gap + column * (side + gap), top + gap), title, fill="black", font=font, anchor="lm")
        top += 3 * gap
        for row in rows:
            for column, picture in enumerate(row.pictures):
                small = Image.fromarray(picture.pixels).resize((side, side), Image.Resampling.LANCZOS)
                sheet.paste(small, (gap + column * (side + gap), top))
            top += side + gap
    with atomic_path(path) as temporary:
        sheet.save(temporary, quality=90)


def open_demo(args: argparse.Namespace) -> Demo:
    """The demo of an output folder, new or continued.

    Raises:
        UserError: the folder holds a demo with another seed or length, or something else.
    """
    output, record = Path(args.output), Path(args.output) / "demo.json"
    demo = Demo(output, args.seed, args.fraction, args.processes)
    if record.is_file():
        kept = read_json(record)
        for key in ("seed", "fraction"):
            if kept.get(key) != getattr(demo, key):
                raise UserError(
                    f"{output} holds a demo with {key} {kept.get(key)}, not {getattr(demo, key)}; give another --output"
                )
        demo.seconds = kept["seconds"]
    elif output.is_dir() and any(not entry.name.startswith(".") for entry in output.iterdir()):
        raise UserError(f"{output} is not empty and holds no demo; give another --output")
    return demo
