"""The ablation runner: which commands it runs, what it reuses, and its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sam_common.errors import UserError
from tools import ablation

ROWS = "{config: c.yaml, trained: {a: [], b: [X, '1']}, tested: {mase: [E, mase], clip: [E, clip]}}"


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands in for training: records the command and leaves results whose PQ is 10·seed, +1 for row b, +2 for clip."""
    seen: list[list[str]] = []

    def train_net(arguments: list[str]) -> None:
        seen.append(arguments)
        value = 10.0 * int(arguments[arguments.index("SEED") + 1]) + ("X" in arguments) + 2 * ("clip" in arguments)
        folder = Path(arguments[arguments.index("OUTPUT_DIR") + 1]) / "inference" / "data"
        folder.mkdir(parents=True)
        metrics = dict.fromkeys(ablation.METRICS, value)
        (folder / "results.json").write_text(json.dumps({"results": {"panoptic_seg": metrics}}))

    monkeypatch.setattr(ablation, "train_net", train_net)
    return seen


def test_rows_are_trained_once_and_tested_in_every_way(
    commands: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """2 rows × 2 seeds train, each tests once more with the same weights; mean and sample deviation by hand."""
    (tmp_path / "rows.yaml").write_text(ROWS)
    arguments = [
        "--rows",
        str(tmp_path / "rows.yaml"),
        "--seeds",
        "2",
        "--output",
        str(tmp_path / "out"),
        "--jobs",
        "1",
    ]
    ablation.main(arguments)
    assert sum("--resume" in command for command in commands) == 4
    assert sum("--eval-only" in command for command in commands) == 4
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| a | mase | 5.0 ± 7.1 |" in table and "| b | clip | 8.0 ± 7.1 |" in table
    assert table.strip() in capsys.readouterr().out
    commands.clear()
    ablation.main(arguments)
    assert commands == []  # everything was complete


def test_a_wrong_rows_file_is_one_line(tmp_path: Path) -> None:
    """Keys that mean nothing are named, not ignored."""
    (tmp_path / "rows.yaml").write_text("{config: c.yaml, train: {}}")
    with pytest.raises(UserError, match="train"):
        ablation.read_rows(str(tmp_path / "rows.yaml"))
    for trained in ("{}", "[a]", "{a: X}", "{a: }"):
        (tmp_path / "rows.yaml").write_text(f"{{config: c.yaml, trained: {trained}, tested: {{mase: []}}}}")
        with pytest.raises(UserError, match="trained must give at least one label a list"):
            ablation.read_rows(str(tmp_path / "rows.yaml"))


@pytest.mark.parametrize("flag", ["--seeds", "--jobs"])
def test_none_at_all_is_refused(flag: str) -> None:
    """No seeds have no mean, and no jobs never end."""
    with pytest.raises(UserError, match=f"{flag} is 0; give at least 1"):
        ablation.main(["--rows", "configs/ablations/possam_embedded.yaml", "--output", "x", flag, "0"])
