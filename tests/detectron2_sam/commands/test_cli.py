"""The exit status of a command line tool."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from detectron2_sam.commands.cli import run_tool
from sam_common.errors import Interrupted, UserError


@pytest.mark.parametrize(
    ("error", "status"), [(None, 0), (UserError("bad key"), 2), (Interrupted("saved", signal.SIGTERM), 143)]
)
def test_exit_status(capsys: pytest.CaptureFixture, error: Exception | None, status: int) -> None:
    """0 done, 2 a mistake, 128 + signal stopped; one line on stderr."""

    def main() -> None:
        if error is not None:
            raise error

    assert run_tool(main) == status
    assert capsys.readouterr().err == {0: "", 2: "error: bad key\n", 143: "saved\n"}[status]


def run_printing(*, stdout: int | None = subprocess.PIPE, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A command that prints a lot, letters that few encodings have and no UTF-8 among it, and then leaves a result."""
    code = (
        "from detectron2_sam.commands.cli import run_tool\n"
        "def main():\n"
        "    for _ in range(5000): print('a → b ± c', 'bad\\udcff.jpg')\n"
        "    with open('result', 'w') as file: file.write('done')\n"
        "    return 1\n"
        "raise SystemExit(run_tool(main))"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=stdout, stderr=subprocess.PIPE, check=False, **options
    )


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [
        ("cp1252", "a \\u2192 b ± c bad\\udcff.jpg"),
        ("ascii:strict", "a \\u2192 b \\xb1 c bad\\udcff.jpg"),
        ("utf-8:strict", "a → b ± c bad\\udcff.jpg"),
    ],
)
def test_no_encoding_ends_a_run(tmp_path: Path, encoding: str, printed: str) -> None:
    """Derived by hand: what an encoding lacks is printed as its escape; the status is the command's own."""
    done = run_printing(cwd=tmp_path, env={"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (1, b"")
    assert done.stdout.decode(encoding.split(":")[0]).splitlines()[0] == printed
    assert (tmp_path / "result").read_text() == "done"


@pytest.mark.parametrize("kind", ["no reader", "full disk", "closed"])
def test_no_stream_ends_a_run(tmp_path: Path, kind: str) -> None:
    """Invariant: with nowhere to print to the result is the same, and nothing printed is in it. A full disk is told."""
    if kind == "closed":
        done = run_printing(cwd=tmp_path, stdout=None, preexec_fn=lambda: os.close(1))
    else:
        reader, stdout = os.pipe()
        os.close(reader)
        if kind == "full disk":
            os.close(stdout)
            stdout = os.open("/dev/full", os.O_WRONLY)
        done = run_printing(cwd=tmp_path, stdout=stdout)
        os.close(stdout)
    if kind == "full disk":
        assert done.returncode == 2 and re.fullmatch(rb"error: .*standard output.*\n", done.stderr)
    else:
        assert (done.returncode, done.stderr) == (1, b"")
    assert (tmp_path / "result").read_text() == "done"


def test_the_error_comes_last(tmp_path: Path) -> None:
    """Also where standard output is a file, which keeps what is printed for a while."""
    with open(tmp_path / "both", "wb") as file:
        code = (
            "import sys; from detectron2_sam.commands.cli import run_tool; from sam_common.errors import UserError\n"
            "def main():\n    print('first'); raise UserError('last')\n"
            "sys.exit(run_tool(main))"
        )
        subprocess.run([sys.executable, "-c", code], stdout=file, stderr=subprocess.STDOUT)
    assert (tmp_path / "both").read_text() == "first\nerror: last\n"


def test_a_pipe_that_breaks_is_an_error() -> None:
    """Another one than standard output's, that is."""

    def main() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_tool(main)
