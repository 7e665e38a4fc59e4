"""Ctrl-C while a command imports."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import os, signal
from detectron2_sam.interrupt import silent_interrupt
with silent_interrupt():
    pass
assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
with silent_interrupt():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        print("an exception")
"""


def test_ctrl_c_in_an_import_is_silent() -> None:
    """No exception that an import could swallow or turn into another, and the status that shells give Ctrl-C; before
    and after, Ctrl-C is what it was."""
    done = subprocess.run([sys.executable, "-S", "-c", CODE], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "", "")
