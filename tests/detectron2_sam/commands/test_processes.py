"""PosSAM on several processes and machines: what one process with the same global batch trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.plugins.environments.lightning import find_free_network_port

from detectron2_sam.commands import train as train_net
from detectron2_sam.commands.cli import run_tool
from detectron2_sam.commands.prepare.generated import prepare
from detectron2_sam.commands.train import run as train_run
from detectron2_sam.commands.train.run import processes_here
from sam_common.engine.checkpoint import read_checkpoint
from sam_common.engine.launch import is_first_process
from sam_common.errors import UserError
from tests.support.workers import quick_start

ROOT = Path(__file__).parents[3]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A drawn world of 6 training scenes, 64 pixels wide, and processes that start quickly."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    prepare(tmp_path, train=6, test=1, size=64)
    with quick_start():
        yield tmp_path


def arguments(world: Path, output: str, *more: str, flags: tuple[str, ...] = ()) -> list[str]:
    """A command line that trains possam_T with random encoders for two iterations of four pictures."""
    folder = world / "generated"
    entry = {"NAME": "mine", "FORMAT": "coco_panoptic", "IMAGES": str(folder / "images" / "train")}
    entry |= {"JSON": str(folder / "panoptic_train.json"), "PANOPTIC": str(folder / "panoptic_train")}
    options = {
        "MODEL.DEVICE": "cpu",
        "MODEL.SAM.WEIGHTS": "random",
        "MODEL.CLIP.WEIGHTS": "random",
        "MODEL.CLIP.TEXT_CACHE": str(world / "text"),
        "MODEL.POSSAM.LOSS.NUM_POINTS": "64",
        "DATASETS.REGISTER": str([entry]),
        "DATASETS.TRAIN": "('mine',)",
        "DATASETS.TEST": "()",
        "INPUT.IMAGE_SIZE": "64",
        "SOLVER.MAX_ITER": "2",
        "SOLVER.WARMUP_ITERS": "0",
        "OUTPUT_DIR": str(world / output),
    }
    pairs = [word for pair in options.items() for word in pair]
    return ["--config-file", "configs/possam_T.yaml", "--engine", "fabric", *flags, *pairs, *more]


def outcome(output: Path) -> tuple[dict[str, float], dict[str, torch.Tensor], dict[Any, Any]]:
    """Mean losses of the iterations, weights, and the optimizer's moments: they are the gradients."""
    line = json.loads((output / "metrics.json").read_text().splitlines()[0])
    content = read_checkpoint(output / "model_final.pth")
    losses = {name: value for name, value in line.items() if "loss" in name}
    return losses, content["model"], content["optimizer"]["state"]


def assert_near(first: Path, second: Path) -> None:
    """Losses, weights and moments within the issue's 1e-5."""
    for one, other in zip(outcome(first), outcome(second), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_two_processes_train_as_one(world: Path) -> None:
    """Two real processes, the same global batch: losses and weights after two steps of AdamW, within 1e-5.

    So are those of two processes that do their share in two parts and recompute activations.
    """
    train_net.main(arguments(world, "one"))
    train_net.main(arguments(world, "two", flags=("--num-gpus", "2")))
    parts = ("SOLVER.ACCUMULATE", "2", "MODEL.POSSAM.ACTIVATION_CHECKPOINTING", "True")
    train_net.main(arguments(world, "parts", *parts, flags=("--num-gpus", "2")))
    assert "processes: 2" in (world / "two" / "log.txt").read_text()
    assert_near(world / "one", world / "two")
    assert_near(world / "one", world / "parts")


def test_torchrun_on_two_machines(world: Path) -> None:
    """torchrun, twice on this computer as if on two, gives the weights of one process; only the first writes."""
    port = str(find_free_network_port())
    tool = [str(ROOT / "tools" / "train_net.py"), *arguments(world, "torchrun")]
    meet = ["--nnodes", "2", "--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", port]
    commands = [
        [sys.executable, "-m", "torch.distributed.run", *meet, "--node_rank", str(rank), *tool] for rank in range(2)
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    machines = [subprocess.Popen(command, cwd=ROOT, env=environment) for command in commands]
    train_net.main(arguments(world, "one"))
    assert [machine.wait(timeout=120) for machine in machines] == [0, 0]
    assert "processes: 2" in (world / "torchrun" / "log.txt").read_text()
    assert_near(world / "one", world / "torchrun")


def test_torchrun_decides_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the flags do; a variable that a job or an earlier run left behind does not count."""
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert processes_here(2, 1) == 2
    assert is_first_process(0) and not is_first_process(1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    assert processes_here(1, 1) == 4 and not is_first_process(0)
    with pytest.raises(UserError, match="leave out --num-gpus and --num-machines"):
        processes_here(2, 1)


def test_a_mistake_under_torchrun_is_one_line(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The first process refuses a used folder; no other one looks at it, since the first may be writing there."""
    (world / "full").mkdir()
    (world / "full" / "thesis.tex").touch()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert run_tool(lambda: train_net.main(arguments(world, "full"))) == 2
    assert "is not empty" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    assert str(world / "full") == train_run.setup(train_net.parse(arguments(world, "full"))).OUTPUT_DIR
