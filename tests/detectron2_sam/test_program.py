"""The program `detectron2-sam`: what it offers, what its help costs, and that the documentation speaks of it truly."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import detectron2_sam
from detectron2_sam.commands import prepare
from detectron2_sam.commands.cli import program_process
from detectron2_sam.program import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]
LIGHT = [*COMMANDS, *(f"prepare {name}" for name in prepare.DATASETS)]
LAUNCHERS = sorted([*(ROOT / "tools").glob("*.py"), *(ROOT / "datasets").glob("*.py")])


def bare(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Python without any package but the standard library's, in the clone."""
    return subprocess.run([sys.executable, "-S", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("command", ["", *LIGHT])
def test_help_needs_the_standard_library_alone(command: str) -> None:
    """Neither torch nor numpy nor anything else can be imported there, so none is waited for."""
    done = bare("-m", "detectron2_sam", *command.split(), "--help")
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.startswith(f"usage: detectron2-sam {command}")


@pytest.mark.parametrize("command", LIGHT)
def test_help_has_an_example(command: str) -> None:
    """Of the command itself."""
    help_text = bare("-m", "detectron2_sam", *command.split(), "--help").stdout
    assert re.search(rf"^ +detectron2-sam {command}( |$)", help_text, re.MULTILINE)


@pytest.mark.parametrize("script", LAUNCHERS, ids=lambda path: path.name)
def test_a_launcher_is_its_command(script: Path) -> None:
    """From a clone that is not installed, with the names that the scripts have always had."""
    name = script.stem.removeprefix("prepare_")
    command = (
        f"prepare {name}" if script.parent.name == "datasets" else name.replace("_", "-").replace("train-net", "train")
    )
    if command.startswith("ablation"):
        command = "reproduce"
    assert bare(script, "--help").stdout.startswith(f"usage: detectron2-sam {command} ")


def test_only_launchers_touch_the_path() -> None:
    """Everything else is imported from where it is installed, or run as a module."""
    files = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not files:
        pytest.skip("not a git checkout")
    touching = {name for name in files if (ROOT / name).is_file() and "sys.path." in (ROOT / name).read_text()}
    assert touching - {str(path.relative_to(ROOT)) for path in LAUNCHERS} <= {"tests/detectron2_sam/test_program.py"}


def test_what_it_offers(capsys: pytest.CaptureFixture[str]) -> None:
    """Alone it lists its commands, a line each; a wrong one is told, with the nearest; the version is the package's."""
    assert main([]) == 0
    listed = re.findall(r"^  ([a-z-]+) +\S", capsys.readouterr().out, re.MULTILINE)
    assert [name for name in listed if not name.startswith("-")][: len(COMMANDS)] == list(COMMANDS)
    assert main(["trian"]) == 2
    told = "error: there is no command {}; see detectron2-sam --help\n"
    assert capsys.readouterr().err == told.format("'trian' (did you mean train?)")
    assert main(["xyz"]) == 2
    assert capsys.readouterr().err == told.format("'xyz'")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"detectron2-sam {detectron2_sam.__version__}\n"


def test_its_processes_run_from_a_clone_that_is_not_installed(tmp_path: Path) -> None:
    """In another folder, where only PYTHONPATH leads to the clone."""
    process = program_process("--version")
    process["args"].insert(1, "-S")
    done = subprocess.run(**process, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"detectron2-sam {detectron2_sam.__version__}\n"


def test_a_process_of_its_own_knows_every_method(tmp_path: Path) -> None:
    """The doctor finds the data sets of all methods, which nobody has registered before it; a reader that has seen
    enough (`| head`) changes nothing."""
    process = program_process("doctor")
    with subprocess.Popen(**process, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as doctor:
        assert doctor.stdout is not None and doctor.stderr is not None
        missing = {"coco_2017_val_panoptic", "generated_test_amodal", "tiktok_test"}
        while missing and (line := doctor.stdout.readline()):
            missing -= {*line.split()}
        doctor.stdout.close()
        assert not missing and doctor.stderr.read() == ""
    assert doctor.returncode in (0, 1)  # of what it found
