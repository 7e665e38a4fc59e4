"""benchmarks/end_to_end.py runs on a CPU, and its lines hold together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAGES = {
    "possam_T": {"SAM encoder and pyramid", "CLIP encoder", "  pixel decoder, in the head", "head", "post-processing"},
    "plug_T": {"crops", "SAM encoder, two branches", "mask decoders", "refinement", "masks back into the image"},
}


def test_every_stage_has_its_share(tmp_path: Path) -> None:
    """Invariant: the stages and the rest make up the whole, all were met, and what is saved is what was printed."""
    options = ["--configs", *STAGES, "--runs", "1", "--objects", "2", "--save", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks.end_to_end", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["case"], line["count"]) for line in lines] == [("possam_T, end to end", 1), ("plug_T, end to end", 2)]
    for line, stages in zip(lines, STAGES.values(), strict=True):
        shares = line["stages"]
        assert shares.keys() == stages | {"the rest"}
        assert sum(share for name, share in shares.items() if not name.startswith(" ")) == pytest.approx(1, abs=0.01)
        assert line["images_per_second"] * line["milliseconds"] == pytest.approx(1000, rel=0.01)
        assert line["peak_mib"] > 0 and line["versions"]["torch"]
        assert line["command"].startswith("python -m benchmarks.end_to_end --configs possam_T")
    (saved,) = tmp_path.iterdir()
    assert json.loads(saved.read_text()) == lines and str(saved) in done.stderr
