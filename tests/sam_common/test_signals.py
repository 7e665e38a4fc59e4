"""Signals that end a run in good order."""

from __future__ import annotations

import os
import signal

import pytest

from sam_common.signals import SIGNALS, stop_on_signals


@pytest.mark.parametrize("signum", SIGNALS)
def test_the_first_signal_is_a_flag(signum: int) -> None:
    """A further SIGTERM, from a scheduler or passed on, changes nothing; the handlers of before come back."""
    before = signal.getsignal(signum)
    with stop_on_signals() as stop:
        assert stop.signum == 0
        for number in (signum, signal.SIGTERM):
            os.kill(os.getpid(), number)
            assert stop.signum == signum
    assert signal.getsignal(signum) == before


def test_what_ends_runs() -> None:
    """People, terminals that are closed, Slurm (USR1) and submitit (USR2)."""
    assert {signal.Signals(number).name for number in SIGNALS} == {"SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"}


def test_what_nohup_ignores_stays_ignored() -> None:
    """A run that is to outlive its terminal does."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signum == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_ctrl_c_ends_at_once() -> None:
    """Impatience works."""
    with stop_on_signals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
