"""Processes and precision."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from lightning_fabric.plugins import MixedPrecision

from sam_common.engine.launch import build_precision, choose_precision, launch
from sam_common.errors import UserError
from tests.support import workers

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


@pytest.mark.parametrize(
    ("device", "name", "has_bf16", "dtype"),
    [
        ("cpu", "auto", True, torch.float32),
        ("cpu", "bf16", False, torch.bfloat16),
        ("cuda", "auto", True, torch.bfloat16),
        ("cuda", "auto", False, torch.float16),
        ("cuda", "fp16", True, torch.float16),
        ("cuda", "float32", True, torch.float32),
    ],
)
def test_precision(monkeypatch: pytest.MonkeyPatch, device: str, name: str, has_bf16: bool, dtype: torch.dtype) -> None:
    """`auto` is float32 on a CPU, and on a GPU what it has in hardware; what is asked for by name is what runs."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: has_bf16)
    assert choose_precision(torch.device(device), name) == dtype


@pytest.mark.parametrize(
    ("name", "message"), [("fp16", "a CPU trains in float32 or bf16"), ("fp8", "choose auto, bf16 or fp16")]
)
def test_precisions_that_cannot_be(name: str, message: str) -> None:
    """One line names the key and what to choose."""
    with pytest.raises(UserError, match=f"SOLVER.AMP.PRECISION is .*{name}.*{message}"):
        choose_precision(CPU, name)


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize(
    ("dtype", "kind", "scales"), [(torch.bfloat16, "bf16-mixed", False), (torch.float16, "16-mixed", True)]
)
def test_mixed_precision_leaves_batches_alone(dtype: torch.dtype, kind: str, scales: bool) -> None:
    """The very objects of the batch reach the model: frozen dataclasses cannot be copied field by field.

    float16 alone scales its loss.
    """
    precision = build_precision(torch.device("cuda"), dtype)
    batch = [{"image": torch.zeros(1)}]
    assert precision.precision == kind and precision.convert_input(batch) is batch
    assert isinstance(precision, MixedPrecision) and (precision.scaler is not None) == scales
    assert build_precision(CPU, torch.float32).precision == "32-true"
