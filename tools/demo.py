"""The project from nothing to a report: draws a world, trains the smallest PosSAM on it, tests it on unseen classes.

    python tools/demo.py --output output/demo

Needs no download, no GPU and about ten minutes of two cores. Run it again to continue what was interrupted; what is
complete is reused. `report.html` in the output folder opens in any browser; `picture.jpg` shows three of its images.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from sam_common.data import catalog
from sam_common.data.generated import prepare
from sam_common.errors import UserError
from sam_common.evaluation.panoptic_quality import METRICS
from sam_common.files import atomic_path, write_text
from sam_common.report import Cell, PictureRow, Report, Section, Table, write_report
from sam_common.run_report import class_table, loss_curve, picture_rows, quality_table, read_json
from sam_common.tool import ToolParser

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the modules of tools/, which is not installed

from tools.methods import full_cfg

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/possam_T.yaml"
TRAIN, TEST = "generated_train_panoptic", "generated_test_panoptic"
NUM_TRAIN, NUM_TEST = 2000, 200
ENSEMBLES = {
    "mase": "MASE: both, weighted by their confidence, scaled by mask quality",
    "geometric": "both, with fixed weights (geometric ensemble)",
    "ldp": "the trained classifier alone",
    "clip": "the frozen CLIP alone",
}


@dataclass
class Demo:
    """What was asked for, and how long each phase took over all attempts; kept in `demo.json`."""

    output: Path
    seed: int
    iterations: int
    processes: int
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str, announcement: str) -> Iterator[None]:
        """Prints what begins and how long it took; the time counts even where the phase is interrupted."""
        print(f"\n== {announcement}", flush=True)
        start = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
            self.save()
        print(f"   done in {duration(spent)}", flush=True)

    def save(self) -> None:
        entry = {"seed": self.seed, "iterations": self.iterations, "seconds": self.seconds}
        write_text(self.output / "demo.json", json.dumps(entry, indent=1))


@dataclass(frozen=True)
class Part:
    """What one method adds to the report."""

    highlights: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    notes: Sequence[str]
    pictures: Sequence[PictureRow]


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    demo = open_demo(parse_arguments(argv))
    os.environ.setdefault("DETECTRON2_DATASETS", str(ROOT / "datasets"))  # for the processes started below too
    root = catalog.datasets_root()
    with demo.phase("world", f"drawing {NUM_TRAIN:,} training and {NUM_TEST} test scenes into {root / 'generated'}"):
        prepare(root, train=NUM_TRAIN, test=NUM_TEST)
    catalog.register_builtin(root)
    parts = [demo_possam(demo)]
    with demo.phase("report", "writing the report"):
        write_report(demo.output / "report.html", build_report(demo, parts))
        write_picture(demo.output / "picture.jpg", [row for part in parts for row in part.pictures][:3])
    print(f"\n{demo.output / 'report.html'}: open it in a browser. {duration(sum(demo.seconds.values()))} in all.")
    return 0


def demo_possam(demo: Demo) -> Part:
    """Trains on the seen classes, evaluates on all, once with each way to classify a mask."""
    run = demo.output / "possam"
    final = run / "model_final.pth"
    announcement = f"training PosSAM, {demo.iterations:,} iterations, then testing it on {NUM_TEST} scenes"
    if quality_file(run).is_file() and final.is_file():
        print(f"\n== PosSAM is trained and tested already: {final}", flush=True)
    else:
        with demo.phase("training", announcement):
            train_net(demo, run, "--resume", "SOLVER.MAX_ITER", demo.iterations)
    folders = {name: run if name == "mase" else demo.output / "ensembles" / name for name in ENSEMBLES}
    for name, folder in folders.items():
        if not quality_file(folder).is_file():
            with demo.phase(f"testing {name}", f"testing the same weights, masks classified by {ENSEMBLES[name]}"):
                options = ("MODEL.WEIGHTS", final, "MODEL.POSSAM.ENSEMBLE.NAME", name)
                train_net(demo, folder, "--eval-only", *options)
    qualities = {name: read_json(quality_file(folder)) for name, folder in folders.items()}
    print_table(qualities["mase"])
    return possam_part(run, qualities)


def possam_part(run: Path, qualities: Mapping[str, dict[str, Any]]) -> Part:
    """The sections of a trained and evaluated PosSAM.

    Args:
        run: its OUTPUT_DIR.
        qualities: ensemble -> contents of its `panoptic_quality.json`; `mase` is the method.
    """
    quality = qualities["mase"]
    means = quality["means"]
    trained = catalog.get(TRAIN).load_vocabulary()
    rows = picture_rows(quality_file(run).parent, catalog.get(TEST), training_vocabulary=trained)
    results = Section(
        "Panoptic quality",
        [f"{quality['rules']['images']} test scenes. Unseen classes are words that no training mask was named with."],
        [
            quality_table(quality, "The trained model with MASE"),
            ensemble_table(qualities),
            class_table(quality),
        ],
    )
    pictures = Section(
        f"{len(rows)} pictures",
        ["Spread evenly over the test scenes, none chosen by hand."],
        rows=rows,
    )
    highlights = [
        (f"{means['PQ']:.1f}", f"PQ, all {means['n']:.0f} classes"),
        (f"{means['PQ_seen']:.1f}", f"PQ, the {means['n_seen']:.0f} seen classes"),
        (f"{means['PQ_unseen']:.1f}", f"PQ, the {means['n_unseen']:.0f} unseen classes"),
    ]
    notes = [
        "This tiny model has met generated pictures only. It shows that the method learns and how its parts compare, "
        "not what it would do on photographs.",
        "The frozen tiny CLIP was taught with the masks and words of the whole world, the unseen classes included, as "
        "a real CLIP has met most words. PosSAM's masks and classifier have not met the unseen ones.",
        "One seed. Differences of a few tenths between the ensembles are within the noise of a training.",
    ]
    training = Section("Training", curves=[loss_curve(run / "metrics.json")])
    return Part(highlights, [results, pictures, training], notes, rows)


def ensemble_table(qualities: Mapping[str, dict[str, Any]]) -> Table:
    """PQ of the same trained weights under each ensemble."""
    groups = {"all": "", "things": "_th", "stuff": "_st", "seen": "_seen", "unseen": "_unseen"}
    rows: list[list[Cell]] = [
        [ENSEMBLES[name], *(quality["means"].get(f"PQ{suffix}") for suffix in groups.values())]
        for name, quality in qualities.items()
    ]
    header = ("a mask is classified by", *(f"PQ {group}" for group in groups))
    return Table("The same weights with other ways to classify a mask", header, rows)


def build_report(demo: Demo, parts: Sequence[Part]) -> Report:
    total = sum(demo.seconds.values())
    facts = [
        ("command", f"python tools/demo.py --output {demo.output} --seed {demo.seed} --iterations {demo.iterations}"),
        ("configuration", CONFIG),
        ("data", f"{NUM_TRAIN:,} training and {NUM_TEST} test scenes, 256 × 256, world seed 0"),
        ("training seed", str(demo.seed)),
        ("time", ", ".join(f"{name} {duration(seconds)}" for name, seconds in demo.seconds.items())),
        ("machine", f"{platform.machine()}, {os.cpu_count()} cores, {device_name()}"),
        ("software", f"Python {platform.python_version()}, PyTorch {torch.__version__}"),
        ("finished", time.strftime("%Y-%m-%d %H:%M %Z")),
    ]
    return Report(
        "PosSAM on a generated world",
        "An open-vocabulary panoptic model, trained on drawn scenes in minutes and then asked for words that no mask "
        "of its training was named with.",
        highlights=[*(h for part in parts for h in part.highlights), (duration(total), "from nothing to this page")],
        facts=facts,
        sections=[section for part in parts for section in part.sections],
        notes=[note for part in parts for note in part.notes],
    )


def write_picture(path: Path, rows: Sequence[PictureRow], *, side: int = 400, gap: int = 10) -> None:
    """The rows' pictures (input, truth, prediction), `side` pixels wide, under their titles, on white, as one JPEG."""
    titles = [picture.title for picture in rows[0].pictures]
    sheet = Image.new("RGB", ((side + gap) * len(titles) + gap, (side + gap) * len(rows) + 4 * gap), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        left = gap + column * (side + gap)
        draw.text((left, 2 * gap), title, fill="black", font=ImageFont.load_default(size=20), anchor="lm")
        for line, row in enumerate(rows):
            picture = Image.fromarray(row.pictures[column].pixels).resize((side, side), Image.Resampling.LANCZOS)
            sheet.paste(picture, (left, 4 * gap + line * (side + gap)))
    with atomic_path(path) as temporary:
        sheet.save(temporary, quality=90)


def train_net(demo: Demo, output: Path, mode: str, *options: object) -> None:
    """Runs tools/train_net.py as anyone would, and shows how.

    Raises:
        SystemExit: with its status, if it did not end well; it has said why.
    """
    arguments = ["--config-file", CONFIG, "--engine", "fabric", mode]  # the same numbers wherever it runs
    if device_name() == "CPU":
        arguments += ["--num-gpus", str(demo.processes)]
        options = ("MODEL.DEVICE", "cpu", *options)
    arguments += map(str, ("OUTPUT_DIR", output, "SEED", demo.seed, *options))
    print("  ", shlex.join(["python", "tools/train_net.py", *arguments]), flush=True)
    process = subprocess.Popen([sys.executable, str(ROOT / "tools" / "train_net.py"), *arguments])
    # Ctrl-C reaches the training by itself, SIGTERM is passed on; it saves a checkpoint first, so it is waited for.
    previous = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: process.terminate()),
    }
    try:
        status = process.wait()
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
    if status:
        print("The demo stopped here; run it again to continue.", file=sys.stderr)
        raise SystemExit(status)


def open_demo(args: argparse.Namespace) -> Demo:
    """The demo of an output folder, new or continued.

    Raises:
        UserError: the folder holds a demo with another seed or length, or something else.
    """
    output, record = Path(args.output), Path(args.output) / "demo.json"
    demo = Demo(output, args.seed, args.iterations or configuration().SOLVER.MAX_ITER, args.processes)
    if record.is_file():
        kept = read_json(record)
        for key in ("seed", "iterations"):
            if kept[key] != getattr(demo, key):
                raise UserError(
                    f"{output} holds a demo with {key} {kept[key]}, not {getattr(demo, key)}; give another --output"
                )
        demo.seconds = kept["seconds"]
    elif output.is_dir() and any(output.iterdir()):
        raise UserError(f"{output} is not empty and holds no demo; give another --output")
    return demo


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="output/demo", metavar="DIR", help="(output/demo)")
    parser.add_argument("--seed", type=int, default=0, help="of the training; the world stays the same (0)")
    parser.add_argument("--iterations", type=int, help=f"of the training (as {CONFIG} says)")
    parser.add_argument("--processes", type=int, default=1, help="that train together on a CPU (1)")
    return parser.parse_args(argv)


def quality_file(run: Path) -> Path:
    """Where an evaluation of the test scenes leaves its results."""
    return run / "inference" / TEST / "panoptic_quality.json"


def print_table(quality: dict[str, Any]) -> None:
    table = quality_table(quality, "")
    print(f"\n{'classes':10}{''.join(f'{name:>8}' for name in METRICS)}{'n':>6}")
    for name, *values, number in table.rows:
        print(f"{name:10}{''.join(f'{value:8.1f}' for value in values)}{number:6}")


def duration(seconds: float) -> str:
    """8 min 21 s, or 21 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def configuration() -> Any:
    cfg = full_cfg()
    cfg.merge_from_file(ROOT / CONFIG)
    return cfg


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as user_error:
        print(f"error: {user_error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nThe demo stopped here; run it again to continue.", file=sys.stderr)
        sys.exit(130)
