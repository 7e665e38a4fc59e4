"""Work on a second stream, with a stand-in for CUDA that writes down what is asked of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch

from possam import side_stream as module
from possam.side_stream import side_stream


def test_a_cpu_knows_nothing_of_it() -> None:
    """The tensor itself comes back."""
    with side_stream(torch.device("cpu")) as join:
        tensor = torch.ones(2)
    assert join(tensor) is tensor


def test_both_streams_wait_where_they_must(monkeypatch: pytest.MonkeyPatch) -> None:
    """The side begins after what was asked before; the first waits for it in `join` only, and then holds its memory."""
    log: list[str] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            log.append(f"{self.name} waits for {other.name}")

    class Result:
        def record_stream(self, stream: Stream) -> None:
            log.append(f"held for {stream.name}")

    @contextlib.contextmanager
    def stream(which: Stream) -> Iterator[None]:
        log.append(f"to {which.name}")
        yield
        log.append("back")

    monkeypatch.setattr(module, "_side", lambda device: Stream("side"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("first"))
    monkeypatch.setattr(torch.cuda, "stream", stream)
    with side_stream(torch.device("cuda")) as join:
        log.append("work")
    log.append("other work")
    join(Result())  # type: ignore[arg-type]
    begun = ["side waits for first", "to side", "work", "back"]
    assert log == [*begun, "other work", "first waits for side", "held for first"]
