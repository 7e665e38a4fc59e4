"""The training loop around a model of one number, where every step can be worked out by hand."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor, nn

from sam_common.engine.checkpoint import Checkpointer
from sam_common.engine.launch import _Autocast, grad_scaler
from sam_common.engine.trainer import Plan, Trainer
from sam_common.errors import Interrupted


class Line(nn.Module):
    """loss = mean factor · weight, so the gradient is the batch's mean factor; `idle` takes no part."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.idle = nn.Parameter(torch.tensor(1.0))

    def forward(self, batch: list[dict[str, Any]], whole: list[dict[str, Any]] | None = None) -> dict[str, Tensor]:
        return {"loss": self.weight * sum(entry["factor"] for entry in batch) / len(whole or batch)}


def trainer(
    directory: Path, factors: Callable[[int], float], plan: Plan, precision: MixedPrecision | None = None
) -> tuple[Trainer, Line, list[int]]:
    """A trainer by plain gradient descent with step 0.5, and the iterations at which it evaluated."""
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[precision] if precision else None)
    model, evaluated = Line(), []
    optimizer = torch.optim.SGD([{"params": model.parameters(), "base_lr": 0.5}], lr=0.0)

    def batches(start: int) -> Iterator[list[dict[str, Any]]]:
        size = plan.accumulate
        return ([{"factor": factors(i * size + k), "file_name": f"{i}.jpg"} for k in range(size)] for i in count(start))

    def evaluate(iteration: int, stopped: Callable[[], bool]) -> dict[str, dict[str, dict[str, float]]]:
        evaluated.append(iteration)
        return {"set": {"task": {"score": [1.0, 3.0, 2.0][len(evaluated) - 1]}}}

    built = Trainer(
        fabric,
        model,
        optimizer,
        plan=plan,
        lr_factor=lambda iteration: 1.0 if iteration < 2 else 0.1,
        batches=batches,
        checkpointer=Checkpointer(model, directory, optimizer=optimizer, scaler=grad_scaler(fabric)),
        evaluate=evaluate,
    )
    return built, model, evaluated


def test_steps_follow_schedule_and_clipping(tmp_path: Path) -> None:
    """Gradients 4, 4, 4 clipped to 2 (within 1e-6 of it), at 0.5, 0.5 and 0.05: 1 - 1 - 1 - 0.1."""
    run, model, _ = trainer(tmp_path, lambda i: 4.0, Plan(max_iter=3, clip_norm=2.0))
    run.train()
    assert float(model.weight.detach()) == pytest.approx(-1.1, abs=1e-5)


def test_parts_of_a_batch_make_one_step(tmp_path: Path) -> None:
    """Images with gradients 1, 2, 6, one at a time, are one step of 0.5 · 3; the loss is that of all three."""
    run, model, _ = trainer(tmp_path, lambda i: (1.0, 2.0, 6.0)[i], Plan(max_iter=1, accumulate=3))
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    run.train()
    assert sizes == [1, 1, 1] and run.progress.losses == [{"loss": 3.0}]
    assert float(model.weight.detach()) == -0.5


def test_a_part_that_is_not_finite_skips_the_whole_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The second of three images is NaN: no weight moves, and the iteration is counted once."""
    run, model, _ = trainer(tmp_path, lambda i: (1.0, math.nan, 6.0)[i], Plan(max_iter=1, accumulate=3))
    run.train()
    assert float(model.weight.detach()) == 1.0 and run.progress.skipped == 1
    assert "iteration 0 skipped: loss, gradient not finite" in caplog.text


def test_no_clipping_is_an_infinite_norm(tmp_path: Path) -> None:
    """One step of 0.5 · 4."""
    run, model, _ = trainer(tmp_path, lambda i: 4.0, Plan(max_iter=1))
    run.train()
    assert float(model.weight.detach()) == -1.0


def test_periods_final_and_best(tmp_path: Path) -> None:
    """Checkpoints after 3 and 6, evaluations after 2, 4, 6 and the end; the best score is kept with its iteration."""
    run, _, evaluated = trainer(tmp_path, lambda i: 0.0, Plan(max_iter=6, checkpoint_period=3, eval_period=2))
    run.train()
    assert evaluated == [1, 3, 5]
    assert {path.name for path in tmp_path.glob("*.pth")} == {"model_0000002.pth", "model_final.pth"}
    assert run.progress.metrics == {
        "last": {"task/score": 2.0},
        "best": {"iteration": 3, "metric": "task/score", "value": 3.0},
    }


def test_stopped_in_the_last_test_the_last_weights_stay_saved(tmp_path: Path) -> None:
    """Validation chose the first of three steps, whose weight is tested; model_final keeps that of all three."""
    run, _, _ = trainer(tmp_path, lambda i: 1.0, Plan(max_iter=3, eval_period=1))
    run.validate = lambda iteration, stopped: {"set": {"task": {"score": -float(iteration)}}}
    run.evaluate = lambda iteration, stopped: None
    with pytest.raises(Interrupted, match=r"model_final\.pth"):
        run.train()
    saved = {name: torch.load(tmp_path / f"{name}.pth", weights_only=True) for name in ("model_best", "model_final")}
    assert float(saved["model_best"]["model"]["weight"]) == 0.5
    assert float(saved["model_final"]["model"]["weight"]) == pytest.approx(-0.05)


def test_a_parameter_without_gradient_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Said once, after the first iteration; with several processes it would stop the run."""
    run, _, _ = trainer(tmp_path, lambda i: 1.0, Plan(max_iter=2))
    with caplog.at_level(logging.WARNING):
        run.train()
    assert [record.getMessage() for record in caplog.records] == ["iteration 0: no gradient reaches idle"]


def test_a_gradient_that_is_not_finite_is_skipped_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Iteration 1 has a finite loss and an infinite gradient: two steps of 0.5 and 0.05 are left of three."""
    run, model, _ = trainer(tmp_path, lambda i: 1.0, Plan(max_iter=3))
    scales = iter((1.0, math.inf, 1.0))
    model.weight.register_hook(lambda gradient: gradient * next(scales))
    run.train()
    assert float(model.weight.detach()) == pytest.approx(0.45)
    assert (run.progress.skipped, run.progress.skipped_in_a_row) == (1, 0)
    assert "iteration 1 skipped: gradient not finite; images: 1.jpg" in caplog.text


def test_float16_lowers_its_scale_where_gradients_overflow(tmp_path: Path) -> None:
    """Scale 2^15 times a gradient of 2^120 overflows; the step is skipped, the scale halves, the next step is taken."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**15)
    run, model, _ = trainer(
        tmp_path, lambda i: 2.0**120 if i == 0 else 2.0, Plan(max_iter=2), _Autocast("16-mixed", "cpu", scaler)
    )
    run.train()
    assert run.progress.skipped == 1 and scaler.get_scale() == 2.0**14
    assert float(model.weight.detach()) == 0.0  # 1 - 0.5 · 2: unscaled before the step


def test_float16_scale_is_resumed(tmp_path: Path) -> None:
    """The scale belongs to the state of a run."""
    precision = _Autocast("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**7))
    trainer(tmp_path, lambda i: 1.0, Plan(max_iter=1), precision)[0].train()
    fresh = torch.amp.GradScaler("cpu")
    run, _, _ = trainer(tmp_path, lambda i: 1.0, Plan(max_iter=2), _Autocast("16-mixed", "cpu", fresh))
    run.resume(tmp_path / "model_final.pth")
    assert fresh.get_scale() == 2.0**7 and run.progress.iteration == 0


def test_resuming_restores_where_the_run_stood(tmp_path: Path) -> None:
    """Iterations 1 and 2 of 3 are skipped, the best score came after 1: a fresh trainer knows, and goes on from there.

    Its iteration 3 takes the schedule's step of 0.05: 1 - 0.5 · 1 - 0.05 · 2.
    """
    trainer(tmp_path, lambda i: (1.0, math.nan, math.nan)[i], Plan(max_iter=3, eval_period=1))[0].train()
    run, model, _ = trainer(tmp_path, lambda i: 2.0, Plan(max_iter=4))
    run.resume(tmp_path / "model_final.pth")
    best = {"iteration": 1, "metric": "task/score", "value": 3.0}
    progress = run.progress
    assert (progress.iteration, progress.skipped, progress.skipped_in_a_row) == (2, 2, 2)
    assert progress.metrics["best"] == best
    run.train()
    assert float(model.weight.detach()) == pytest.approx(0.4)
    assert (progress.iteration, progress.skipped, progress.skipped_in_a_row) == (3, 2, 0)
    assert progress.metrics == {"last": {"task/score": 1.0}, "best": best}


def test_nothing_is_drawn_from_the_state_of_before(tmp_path: Path) -> None:
    """A model that uses torch's global generator draws the same in iteration 2 whether 0 and 1 ran or not."""
    drawn: list[list[float]] = []
    for start in (0, 2):
        (tmp_path / str(start)).mkdir()
        run, model, _ = trainer(tmp_path / str(start), lambda i: 0.0, Plan(max_iter=3, seed=7))
        values: list[float] = []
        model.register_forward_pre_hook(lambda *_, values=values: values.append(torch.rand(()).item()))
        run.progress.iteration = start - 1
        run.train()
        drawn.append(values)
    assert drawn[0][2:] == drawn[1] and len(set(drawn[0])) == 3 and not math.isnan(drawn[1][0])
