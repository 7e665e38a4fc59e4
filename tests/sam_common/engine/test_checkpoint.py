"""Checkpoints: what they hold, what they refuse, and that a kill during a write loses nothing."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from sam_common.engine.checkpoint import (
    Checkpointer,
    frozen_sha256,
    last_checkpoint,
    load_trained,
    read_checkpoint,
    read_state,
    trained_state,
)
from sam_common.errors import UserError

PROGRESS = {"iteration": 4, "seed": 0, "skipped": 2, "skipped_in_a_row": 0, "metrics": {}}


class Partly(nn.Module):
    """A frozen encoder with a buffer, a trained head with a buffer, a half-frozen adapter, extra state."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm2d(2)).requires_grad_(False)
        self.head = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))
        self.adapter = nn.Linear(2, 2)
        self.adapter.weight.requires_grad_(False)
        self.note = "trained on dogs"

    def get_extra_state(self) -> dict[str, str]:
        return {"note": self.note}

    def set_extra_state(self, state: dict[str, str]) -> None:
        self.note = state["note"]


def checkpointer(model: nn.Module, directory: Path, config_file: str = "") -> Checkpointer:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    return Checkpointer(model, directory, optimizer=optimizer, config_file=config_file)


def test_trained_state_is_exactly_what_training_changes() -> None:
    """By hand: the head with its running statistics, the adapter's bias, the extra state; nothing of the encoder."""
    head = {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert trained_state(Partly()).keys() == {f"head.{key}" for key in head} | {"adapter.bias", "_extra_state"}
    assert frozen_sha256(Partly()).keys() == {"encoder", "adapter"}


def test_a_fully_frozen_model_has_no_trained_part() -> None:
    """Edge case: nothing trains, so the root itself is the frozen module."""
    assert trained_state(nn.Linear(2, 2).requires_grad_(False)) == {}


def test_checkpoints_without_their_pointer_are_not_skipped_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A new folder says nothing; one whose `last_checkpoint` was lost does."""
    assert last_checkpoint(tmp_path) is None and not caplog.messages
    (tmp_path / "model_0000003.pth").touch()
    assert last_checkpoint(tmp_path) is None
    assert len(caplog.messages) == 1 and str(tmp_path / "last_checkpoint") in caplog.text


def test_a_broken_checkpoint_of_a_run_names_the_way_on(tmp_path: Path) -> None:
    """The pointer is a text file, which anybody can change."""
    (tmp_path / "model_0000003.pth").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"model_0000003\.pth.*last_checkpoint$"):
        read_state(tmp_path / "model_0000003.pth")


def test_round_trip(tmp_path: Path) -> None:
    """Trained weights, extra state, optimizer moments and the plain entries come back equal in another model object."""
    model = Partly()
    writer = checkpointer(model, tmp_path)
    model.head(torch.randn(4, 2)).square().sum().backward()
    writer.optimizer.step()
    model.note = "trained on cats"
    path = writer.save("model_0000004", PROGRESS)

    other = Partly()
    other.encoder.load_state_dict(model.encoder.state_dict())
    other.adapter.load_state_dict(model.adapter.state_dict())
    reader = checkpointer(other, tmp_path)
    content = reader.load(path)
    assert other.note == "trained on cats"
    for key, value in trained_state(model).items():
        if key != "_extra_state":
            assert torch.equal(value, trained_state(other)[key]), key
    for mine, theirs in zip(
        writer.optimizer.state_dict()["state"].values(), reader.optimizer.state_dict()["state"].values(), strict=True
    ):
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert {key: content[key] for key in PROGRESS} == PROGRESS
    assert last_checkpoint(tmp_path) == path


def test_a_file_for_another_model_is_refused_in_one_line_and_nothing_is_loaded(tmp_path: Path) -> None:
    """Mis-shaped keys are named (few, with their count), and so is the configuration the file was trained with."""
    path = checkpointer(Partly(width=5), tmp_path, "configs/wide.yaml").save("model_final", PROGRESS)
    model = Partly(width=3)
    before = {key: value for key, value in trained_state(model).items() if key != "_extra_state"}
    message = r"6 of another shape \(head\.0\.bias .* and 3 more\); .*configs/wide\.yaml"
    with pytest.raises(UserError, match=message) as error:
        load_trained(model, read_checkpoint(path), str(path), frozen=frozen_sha256(model))
    assert "\n" not in str(error.value)
    assert all(torch.equal(trained_state(model)[key], value) for key, value in before.items())


def test_missing_and_unexpected_keys_are_named(tmp_path: Path) -> None:
    """One key renamed is one missing and one unexpected."""
    path = checkpointer(Partly(), tmp_path).save("model_final", PROGRESS)
    content = read_checkpoint(path)
    content["model"]["adapter.offset"] = content["model"].pop("adapter.bias")
    model = Partly()
    with pytest.raises(UserError, match=r"1 missing \(adapter\.bias\); 1 unexpected \(adapter\.offset\)"):
        load_trained(model, content, str(path), frozen=frozen_sha256(model))


def test_other_frozen_weights_are_refused(tmp_path: Path) -> None:
    """The trained part means nothing beside an encoder it was not trained with; the part is named."""
    model = Partly()
    path = checkpointer(model, tmp_path).save("model_final", PROGRESS)
    with torch.no_grad():
        model.encoder[0].bias[0] += 1
    with pytest.raises(UserError, match="other frozen weights: encoder "):
        load_trained(model, read_checkpoint(path), str(path), frozen=frozen_sha256(model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.long(), r"1 of another type \(adapter\.bias torch\.int64 for torch\.float32\)"),
        (lambda value: value.to(torch.complex64), r"1 of another type \(adapter\.bias torch\.complex64 for "),
        (lambda value: value.to("meta"), r"'adapter\.bias' is a torch\.strided on meta"),
    ],
    ids=["whole", "complex", "without data"],
)
def test_numbers_of_another_kind(tmp_path: Path, change: Callable[[Tensor], Tensor], message: str) -> None:
    """Torch would cut off what is behind the point, and the imaginary part; half precision is read."""
    model = Partly()
    path = checkpointer(model, tmp_path).save("model_final", PROGRESS)
    content = torch.load(path, weights_only=True)
    for made in (torch.Tensor.half, change):
        torch.save(
            {**content, "model": {**content["model"], "adapter.bias": made(content["model"]["adapter.bias"])}}, path
        )
        with pytest.raises(UserError, match=message) if made is change else contextlib.nullcontext():
            load_trained(model, read_checkpoint(path), str(path), frozen=frozen_sha256(model))


@pytest.mark.parametrize("recorded", [{"encoder": None}, {1: "a"}])
def test_hashes_that_are_none(tmp_path: Path, recorded: dict) -> None:
    """Error: the entry is named."""
    path = checkpointer(Partly(), tmp_path).save("model_final", PROGRESS)
    torch.save({**torch.load(path, weights_only=True), "frozen_sha256": recorded}, path)
    with pytest.raises(UserError, match="its entry 'frozen_sha256'"):
        read_checkpoint(path)


@pytest.mark.parametrize("stage", ["serialising", "replacing"])
def test_a_kill_during_a_write_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Dying between any byte and the rename: `last_checkpoint` still names a file that loads."""
    writer = checkpointer(Partly(), tmp_path)
    first = writer.save("model_0000004", PROGRESS)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    def die_half_way(_: object, file: object) -> None:
        file.write(b"half a checkpoint")  # type: ignore[attr-defined]
        die()

    if stage == "serialising":
        monkeypatch.setattr(torch, "save", die_half_way)
    else:
        monkeypatch.setattr(os, "replace", die)
    for name in ("model_0000009", "model_0000004"):  # a new name, and the very name that is good
        with pytest.raises(KeyboardInterrupt):
            writer.save(name, {**PROGRESS, "iteration": 9})
    assert last_checkpoint(tmp_path) == first
    assert read_checkpoint(first)["iteration"] == 4


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """Writes past 2,000 bytes of a file fail, as on a full disk."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """The path is named, no half-written file stays."""
    writer = checkpointer(Partly(), tmp_path)
    with pytest.raises(UserError, match="cannot write .*model_final.pth"), small_files():
        writer.save("model_final", PROGRESS)
    assert list(tmp_path.iterdir()) == []


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("hacked",)


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, empty, cut, changed, text, Python objects (which must not run), another dictionary: one line each."""
    monkeypatch.chdir(tmp_path)
    whole = checkpointer(Partly(), tmp_path).save("model_final", PROGRESS).read_bytes()
    contents = {"empty": b"", "cut": whole[: len(whole) // 2], "text": b"hello", "pickle": pickle.dumps(Evil())}
    contents["tensors.safetensors"] = save({"a": torch.zeros(1)})
    contents["zip.safetensors"] = whole[:-40]
    contents["name"] = whole.replace(b"data.pkl", b"d\xffta.pkl")
    contents["changed"] = whole.replace(b"adapter.bias", b"adapter.bios")
    torch.save({"model": Evil()}, "evil")
    contents["evil"] = Path("evil").read_bytes()
    for name, data in contents.items():
        Path(name).write_bytes(data)
        with pytest.raises(UserError, match=name) as error:
            read_checkpoint(name)
        assert "\n" not in str(error.value)
    torch.save({"epoch": 3}, "other")
    with pytest.raises(UserError, match="no entry 'model'"):
        read_checkpoint("other")
    torch.save({"model": {1: torch.zeros(1)}}, "numbers")
    with pytest.raises(UserError, match="numbers.*key 1"):
        read_checkpoint("numbers")
    Path("other.safetensors").write_bytes(whole)
    assert read_checkpoint("other.safetensors")["iteration"] == read_checkpoint("model_final.pth")["iteration"]
    with pytest.raises(UserError, match="there is no checkpoint missing"):
        read_checkpoint("missing")
    assert not Path("hacked").exists()
