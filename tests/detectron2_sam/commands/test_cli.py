"""The exit status of a command line tool."""

from __future__ import annotations

import signal

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


def test_another_pipe_that_breaks_is_an_error() -> None:
    """Only a reader of standard output that has gone ends a command without a word."""

    def main() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_tool(main)
