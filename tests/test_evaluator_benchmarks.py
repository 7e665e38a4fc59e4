"""What the benchmarks of evaluators check before they time anything holds, and they come to their end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import evaluation_memory, evaluation_overlap, label_map_rle, mask_ap, panoptic_quality
from tests.support.plain_panoptic_quality import plain

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")


@pytest.fixture(autouse=True)
def _nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each function runs once in place of many times."""

    def once(peer: Any, ours: Any, **options: Any) -> dict[str, Any]:
        peer(), ours()
        return {"peer_ms": 1.0, "ours_ms": 1.0, "ratio": 1.0}

    for script in (evaluation_overlap, label_map_rle, mask_ap, panoptic_quality):
        monkeypatch.setattr(script, "in_turn", once)
    monkeypatch.delenv("BENCH_PEERS", raising=False)
    monkeypatch.delenv("DETECTRON2_SAM_SAMPLES", raising=False)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("script", [panoptic_quality, label_map_rle, mask_ap, evaluation_overlap])
def test_ours_equals_the_peer(script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Equality, which each script insists on: with the plain formulation, pycocotools, a loop without threads."""
    monkeypatch.setattr(panoptic_quality, "find_peer", lambda: ("the plain formulation", plain))
    few = {mask_ap: ["--images", "3"], evaluation_overlap: ["--images", "2", "--milliseconds", "1"]}
    monkeypatch.setattr(sys, "argv", ["script", *few.get(script, [])])
    script.main()
    found = lines(capsys)
    assert found and all(line["equal"] for line in found)


@needs_proc
@pytest.mark.parametrize("name", evaluation_memory.CASES)
def test_every_evaluator_is_fed(name: str, tmp_path: Path) -> None:
    """Memory is read at the start, every so many images and at the end; the evaluator wrote what it should."""
    (tmp_path / "truth").mkdir()
    points = list(evaluation_memory.measure(name, 6, 2, tmp_path))
    assert [count for count, _ in points] == [0, 2, 4, 6, 6]
    assert all(size > 2**20 for _, size in points) and list((tmp_path / "out").iterdir())


def test_the_curve_is_drawn(tmp_path: Path) -> None:
    """Edge: one evaluator whose memory does not change at all."""
    evaluation_memory.draw(tmp_path / "new" / "curve.png", {"flat": {"mib": [5.0, 5.0], "evaluate_mib": 5.0}}, 250)
    with Image.open(tmp_path / "new" / "curve.png") as picture:
        assert picture.size == (900, 420)
