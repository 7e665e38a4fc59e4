"""Processes, precision and signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch

from sam_common.engine.launch import Interrupted, build_precision, launch, run_tool, stop_on_signals
from sam_common.errors import UserError
from tests.sam_common.engine import workers

CPU = torch.device("cpu")


@pytest.fixture
def quick() -> Iterator[None]:
    with workers.quick_start():
        yield


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_know_each_other(processes: int) -> None:
    """Sum of rank + 5: 5 alone, 5 + 6 together; arguments go in, rank 0's result comes out."""
    assert launch(workers.sum_of_ranks, 5, device=CPU, processes=processes) == (5 if processes == 1 else 11)


def test_a_mistake_of_one_rank_ends_all(quick: None, capfd: pytest.CaptureFixture) -> None:
    """The very UserError arrives, though rank 0 would wait for ever; no traceback."""
    with pytest.raises(UserError, match="^the folder of rank 1 is missing$"):
        launch(workers.mistake_at_rank_1, device=CPU, processes=2)
    assert "Traceback" not in capfd.readouterr().err


def test_a_killed_process_ends_all(quick: None) -> None:
    """One line names the signal."""
    with pytest.raises(UserError, match="SIGKILL; out of memory"):
        launch(workers.killed_at_rank_1, device=CPU, processes=2)


def test_precision() -> None:
    """A CPU computes in float32 whatever is asked for; the GPU's choice is bfloat16 or float16 by what it has."""
    kinds = [
        build_precision(torch.device(name), mixed=mixed).precision for name, mixed in (("cpu", True), ("cuda", False))
    ]
    assert kinds == ["32-true", "32-true"]


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize(("has_bf16", "kind"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_mixed_precision_leaves_batches_alone(monkeypatch: pytest.MonkeyPatch, has_bf16: bool, kind: str) -> None:
    """The very objects of the batch reach the model: frozen dataclasses cannot be copied field by field."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_bf16)
    precision = build_precision(torch.device("cuda"), mixed=True)
    batch = [{"image": torch.zeros(1)}]
    assert precision.precision == kind and precision.convert_input(batch) is batch


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_a_flag(signum: int) -> None:
    """A further SIGTERM, from a scheduler or passed on, changes nothing; the handlers of before come back."""
    before = signal.getsignal(signum)
    with stop_on_signals() as stop:
        assert stop.signum == 0
        for number in (signum, signal.SIGTERM):
            os.kill(os.getpid(), number)
            assert stop.signum == signum
    assert signal.getsignal(signum) == before


def test_a_second_ctrl_c_ends_at_once() -> None:
    """Impatience works."""
    with stop_on_signals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


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
