"""Every command of the documentation: it is parsed, its configuration is built, and what can be is run, small, under
both engines; each that is not run has a reason."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detectron2_sam.commands import train
from detectron2_sam.commands.prepare.generated import prepare
from detectron2_sam.commands.reproduce.table import table_names
from detectron2_sam.methods import full_cfg, leaves
from detectron2_sam.program import COMMANDS
from possam.text_embeddings import TextEmbeddings
from sam_common.config import find_config
from sam_common.data import catalog
from sam_common.errors import UserError
from tests.support.amodal_trees import cocoa_content, write_image, write_json
from tests.support.documented import ROOT, Command, code_blocks, commands, named_files, texts
from tests.support.draw_shelf import draw_shelf
from tests.support.public_trees import draw_public_trees

ENGINES = {"fabric": "detectron2_sam.commands.train.run", "detectron2": "detectron2_sam.plugin.launch"}
HAS_DETECTRON2 = importlib.util.find_spec("detectron2") is not None
WITH_DETECTRON2 = pytest.mark.skipif(not HAS_DETECTRON2, reason="needs Detectron2")
BOTH = pytest.mark.parametrize("engine", ["fabric", pytest.param("detectron2", marks=WITH_DETECTRON2)])

NOT_RUN = {
    # prefix: why its kind of command is not run here, and which test runs it in miniature, if any
    "detectron2-sam --help": "tests/detectron2_sam/test_program.py",
    "detectron2-sam convert-boxes": "tests/detectron2_sam/commands/test_convert_boxes.py",
    "detectron2-sam count-parameters": "tests/detectron2_sam/commands/test_count_parameters.py",
    "detectron2-sam demo": "15 minutes; tests/detectron2_sam/commands/test_demo.py",
    "detectron2-sam doctor": "tests/detectron2_sam/commands/test_doctor.py",
    "detectron2-sam fewshot": "tests/test_custom_data.py, tests/detectron2_sam/commands/test_fewshot.py",
    "detectron2-sam predict": "tests/test_custom_data.py, tests/detectron2_sam/commands/predict",
    "detectron2-sam prepare": "tests/detectron2_sam/commands/prepare",
    "detectron2-sam reproduce": "hours; tests/detectron2_sam/commands/reproduce",
    "detectron2-sam validate-amodal": "tests/test_custom_data.py",
    "detectron2-sam train --engine detectron2 --eval-only --config detectron2/amodal_mask_rcnn_R_50_FPN": (
        "needs the weights of the model zoo; tests/detectron2_sam/plugin/test_amodal_detector.py"
    ),
    "detectron2-sam train --config amsam_B DATASETS.TRAIN ('tiktok_train',)": "tests on 2,000 images",
    "python DETECTRON2/tools/lazyconfig_train_net.py": "a clone; tests/detectron2_sam/plugin/test_lazy.py",
    "python tests/support/draw_shelf.py": "tests/test_custom_data.py",
    "python -m pytest": "the tests themselves",
    "python -m pip": "installs",
    "python -m benchmarks": "minutes; tests/test_benchmarks.py",
    "python -m weights.tiny_encoders": "an hour; tests/weights",
    "pip": "installs",
    "source": "the shell's",
    "export": "the shell's",
    "make": "the Makefile's",
    "BENCH_PEERS": "clones of other projects",
}

FILES = named_files((ROOT / "docs" / "custom_data.md").read_text(encoding="utf-8"))
"""What the guide to one's own data shows, under its names."""

SMALL = {
    "MODEL.DEVICE": "cpu",
    "INPUT.IMAGE_SIZE": 64,
    "INPUT.MIN_SIZE_TEST": 64,
    "INPUT.MAX_SIZE_TEST": 64,
    "INPUT.BOXES.SOURCE": "full_image",
    "DATASETS.SHOTS": 2,
    "DATALOADER.NUM_WORKERS": 0,
    "SOLVER.ACCUMULATE": 1,
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.MAX_ITER": 2,
    "SOLVER.STEPS": (),
    "SOLVER.WARMUP_ITERS": 0,
    "TEST.EVAL_PERIOD": 1,
}
"""What makes a run short, whatever its method."""


def reason(command: Command) -> str | None:
    """The entry of `NOT_RUN` that a command falls under."""
    return next((prefix for prefix in NOT_RUN if f"{command} ".startswith(prefix)), None)


def trainings() -> dict[str, Command]:
    """The commands that have a configuration to build, of training and of evaluation, by their text."""
    return {str(command): command for command in commands() if command.arguments[:1] in (("train",), ("evaluate",))}


def parse(command: Command) -> Any:
    name, *arguments = command.arguments
    return importlib.import_module(COMMANDS[name][0]).parse(arguments)


def runs() -> dict[str, Command]:
    """What remains of `trainings` when each is small: those that differ by no more than sizes and machines are one."""
    different: dict[str, Command] = {}
    for command in trainings().values():
        if reason(command) is None:
            args = parse(command)
            config = re.sub(r"_[TBLH](?=_)|_[LH]$", "_B", Path(args.config_file).stem)
            keys = zip(args.opts[::2], args.opts[1::2], strict=True)
            kept = [f"{key} {value}" for key, value in keys if key not in SMALL and key != "OUTPUT_DIR"]
            different.setdefault(" ".join([config, *["--eval-only"] * args.eval_only, *kept]), command)
    return different


def test_each_command_is_run_or_has_a_reason() -> None:
    """Nothing is left out without a word, no reason outlives its command, and the tests that reasons name are there."""
    every = commands()
    assert [str(command) for command in every if str(command) not in trainings() and reason(command) is None] == []
    assert set(NOT_RUN) - {reason(command) for command in every} == set()
    named = {name for why in NOT_RUN.values() for name in re.findall(r"tests/[\w/.]+\w", why)}
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the commands name: data sets, a page's YAML files, checkpoints under each of their names."""
    place = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setitem(TextEmbeddings.__init__.__kwdefaults__, "templates", ("{}",))  # of 14; 1,306 words are many
        patch.setenv("DETECTRON2_DATASETS", "datasets")
        draw_public_trees(place / "datasets")
        prepare(place / "datasets", train=3, test=1, size=64)
        draw_shelf(place / "shelf", train=3, val=1)
        for name, text in FILES.items():
            (place / name).write_text(text)
        write_json(place / "cocoa" / "five.json", cocoa_content()["annotations"][0])
        write_image(place / "cocoa" / "five.png")
        shutil.copytree(place / "datasets/coco/val2017", place / "coco_panoptic/images")
        shutil.copytree(place / "datasets/coco/panoptic_val2017", place / "coco_panoptic/panoptic")
        shutil.copy(place / "datasets/coco/annotations/panoptic_val2017.json", place / "coco_panoptic/panoptic.json")
        options = words({**SMALL, "DATASETS.TEST": ()}, "output/possam")
        train.main(["--config", "possam_T", "--engine", "fabric", *options])
        shutil.copy("output/possam/model_final.pth", "model_final.pth")
        yield place


@pytest.fixture
def fresh(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, and a catalog that has not met the data sets of another page."""
    monkeypatch.setattr(catalog, "_specs", {})
    monkeypatch.setattr(catalog, "_origin", {})
    return place


def words(options: dict[str, object], output: object) -> list[str]:
    return [str(word) for pair in {**options, "OUTPUT_DIR": output}.items() for word in pair]


def test_each_make_target_is_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in commands():
        if "make" in command.words:
            target = command.words[command.words.index("make") + 1]
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), command


def test_each_command_line_is_parsed(fresh: Path) -> None:
    """By its own parser. Configurations of what is not trained merge with their overrides, and tables are known."""
    ours = [command for command in commands() if command.arguments and command.arguments != ("--help",)]
    assert len(ours) > 140
    for command in ours:
        args = parse(command)
        if getattr(args, "config_file", None) and str(command) not in trainings():
            full_cfg(args.config_file, args.opts)
        if command.arguments[0] == "reproduce":
            assert {*(args.table or ())} <= {"embedded", *table_names()}, command


@BOTH
@pytest.mark.parametrize("text", trainings())
def test_its_configuration_is_built(text: str, engine: str, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as before any data are read; what an engine refuses, a command that names the other one asks for."""
    command = trainings()[text]
    if command.torchrun:
        for key in ("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK"):
            monkeypatch.setenv(key, "0")
        for key in ("LOCAL_WORLD_SIZE", "WORLD_SIZE", "GROUP_WORLD_SIZE"):
            monkeypatch.setenv(key, "1")
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "docs")
    args = parse(command)
    args.opts += words({"MODEL.DEVICE": "cpu"}, "output/none")
    try:
        cfg = importlib.import_module(ENGINES[engine]).setup(args)
    except UserError as error:
        assert args.engine not in ("auto", engine) and f"--engine {args.engine}" in str(error)
    else:
        assert cfg.DATASETS.TEST


@BOTH
@pytest.mark.parametrize("block", [block for text in texts().values() for block in code_blocks(text, "yaml")])
def test_each_yaml_is_merged(block: str, engine: str, fresh: Path, tmp_path: Path) -> None:
    """What is no whole configuration goes into `possam_T`; a detector of Detectron2's is beside its own base."""
    of_detector = "mask_rcnn_R_50_FPN" in block
    if of_detector and engine == "fabric":
        pytest.skip("keys of Detectron2")
    if of_detector:
        compat = importlib.import_module("detectron2_sam.plugin.compat")
        shutil.copytree(compat.stock_config(""), tmp_path, dirs_exist_ok=True)
    file = tmp_path / "COCO-InstanceSegmentation" / "block.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(block if "_BASE_" in block else f"_BASE_: possam_T.yaml\n{block}")
    args = train.parse(["--config", str(file), "--eval-only", "MODEL.DEVICE", "cpu"])
    assert importlib.import_module(ENGINES[engine]).setup(args).DATASETS.TEST


def small(command: Command, engine: str, output: Path) -> list[str]:
    """The command for two iterations of one picture, with the model that ships."""
    args = parse(command)
    name = full_cfg(args.config_file).MODEL.META_ARCHITECTURE.lower()
    base, tiny = (dict(leaves(full_cfg(find_config(f"{name}_{size}")))) for size in ("base", "T"))
    model = {key: value for key, value in tiny.items() if key.startswith("MODEL.") and value != base[key]}
    mine = dict(zip(args.opts[::2], args.opts[1::2], strict=True))
    quick = {**SMALL, "MODEL.POSSAM.LOSS.NUM_POINTS": 64, "MODEL.PLUG.CROP_SIZE": 64, "MODEL.PLUG.NUM_POINTS": 32}
    flags = ["--config", args.config_file, "--engine", engine, *["--eval-only"] * args.eval_only]
    return [*flags, *words({**model, **mine, **quick}, output)]


def tables(output: Path) -> dict[str, Any]:
    """Data set -> task -> metric -> value, of all that were tested."""
    files = output.glob("inference/*/results.json")
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8"))["results"] for file in files}


@pytest.mark.parametrize("name", runs())
def test_it_runs_small_and_alike_under_both_engines(name: str, fresh: Path, tmp_path: Path) -> None:
    """Two iterations and the evaluation: the tables of both engines, where both are there, have the same numbers."""
    engines = list(ENGINES) if HAS_DETECTRON2 else ["fabric"]
    for engine in engines:
        train.main(small(runs()[name], engine, tmp_path / engine))
    ours, *theirs = (tables(tmp_path / engine) for engine in engines)
    assert ours and all(ours.values())
    assert theirs in ([], [ours])
