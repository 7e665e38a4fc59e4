"""Gathering over ranks."""

from __future__ import annotations

import subprocess
import sys

from sam_common.evaluation.evaluator import gather, is_main_process

_RANK = """
import sys
from torch import distributed
from sam_common.evaluation.evaluator import gather, is_main_process
rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
print(gather([rank] * rank), is_main_process())
distributed.destroy_process_group()
"""


def test_alone():
    """Edge case: without distributed training there is one value, and this process writes."""
    assert gather("value") == ["value"] and is_main_process()


def test_two_ranks_see_both_values(tmp_path):
    """Invariant: both ranks get the values of both, in the order of ranks, of any length; rank 0 alone writes."""
    commands = [[sys.executable, "-c", _RANK, str(rank), str(tmp_path / "store")] for rank in (0, 1)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    outputs = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert outputs == ["[[], [1]] True", "[[], [1]] False"]
