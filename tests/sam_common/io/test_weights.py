"""Weight files: the download without a network, damaged files, and the hash of a state dict."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import socket
import tempfile
import zipfile
from email.message import Message
from functools import partial
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request

import numpy as np
import pytest
import torch.hub
from safetensors.torch import save_file

from sam_common.errors import UserError
from sam_common.io import weights
from sam_common.io.weights import OFFICIAL, OfficialFile, read_weights, state_sha256, verified_file

CONTENT = b"published bytes " * 100_000  # more than one chunk


class Response(io.BytesIO):
    """What `urlopen` returns, as far as it is used."""

    def info(self) -> Message:
        headers = Message()
        headers["Content-Length"] = str(len(self.getvalue()))
        return headers


@pytest.fixture()
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, not there yet, and `CONTENT` published as `sam_vit_b`."""
    monkeypatch.setenv("DETECTRON2_SAM_CACHE", str(tmp_path / "cache"))
    published = OfficialFile("https://example.org/sam_vit_b_01ec64.pth", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(weights.OFFICIAL, "sam_vit_b", published)
    return tmp_path / "cache"


def serve(monkeypatch: pytest.MonkeyPatch, content: bytes) -> list[str]:
    """Lets every address answer with `content`; the addresses asked for."""
    asked: list[str] = []

    def urlopen(request: Request) -> Response:
        assert socket.getdefaulttimeout() == 30
        asked.append(request.full_url)
        return Response(content)

    monkeypatch.setattr(torch.hub, "urlopen", urlopen)
    return asked


def sam_b() -> Path:
    return verified_file(OFFICIAL["sam_vit_b"], "sam_vit_b")


def test_downloads_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file lies under its official name with the published bytes, and the second call asks nobody. No server is
    waited for forever, and other connections keep their patience."""
    asked = serve(monkeypatch, CONTENT)
    path = sam_b()
    assert socket.getdefaulttimeout() is None
    assert path == sam_b() == cache / "sam_vit_b_01ec64.pth"
    assert path.read_bytes() == CONTENT
    assert asked == ["https://example.org/sam_vit_b_01ec64.pth"]
    assert list(cache.iterdir()) == [path]


def test_wrong_hash_is_refused_and_deleted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A truncated download leaves nothing behind, and both hashes are told."""
    serve(monkeypatch, CONTENT[:-1])
    with pytest.raises(UserError) as caught:
        sam_b()
    assert hashlib.sha256(CONTENT[:-1]).hexdigest() in str(caught.value)
    assert hashlib.sha256(CONTENT).hexdigest() in str(caught.value)
    assert list(cache.iterdir()) == []


def test_without_a_network_the_way_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the address to fetch and the place to put the file."""

    def urlopen(request: Request) -> Response:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "urlopen", urlopen)
    with pytest.raises(UserError) as caught:
        sam_b()
    message = str(caught.value)
    assert "https://example.org/sam_vit_b_01ec64.pth" in message
    assert str(cache / "sam_vit_b_01ec64.pth") in message and "\n" not in message
    assert list(cache.iterdir()) == []


def test_broken_connection_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection ends after the first chunk: no partial file under any name."""

    class Broken(Response):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise ConnectionResetError("connection reset")
            return super().read(size)

    monkeypatch.setattr(torch.hub, "urlopen", lambda request: Broken(CONTENT))
    with pytest.raises(UserError, match="connection reset"):
        sam_b()
    assert list(cache.iterdir()) == []


def test_a_killed_download_is_not_taken_for_the_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While bytes arrive, the official name is not there: what a kill leaves behind is not found by the next call."""
    seen: list[bool] = []

    class Watched(Response):
        def read(self, size: int | None = -1, /) -> bytes:
            seen.append((cache / "sam_vit_b_01ec64.pth").exists())
            return super().read(size)

    monkeypatch.setattr(torch.hub, "urlopen", lambda request: Watched(CONTENT))
    assert sam_b().read_bytes() == CONTENT
    assert len(seen) > 2 and not any(seen)


def test_damaged_cache_file_is_named_and_kept(cache: Path) -> None:
    """A file someone put there is verified too; deleting it is theirs to do."""
    cache.mkdir()
    path = cache / "sam_vit_b_01ec64.pth"
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match="is damaged") as caught:
        sam_b()
    assert str(path) in str(caught.value) and path.exists()


def test_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A user whom the system does not know keeps files in a private folder, told once and the same every time; where
    somebody else has taken its name, in another one."""

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("DETECTRON2_SAM_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.cache_folder() == tmp_path / ".cache" / "detectron2_sam"
    monkeypatch.setattr(Path, "home", home)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    weights._without_home.cache_clear()
    folder = weights.cache_folder()
    assert folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700
    assert weights.cache_folder() == folder and len(caplog.messages) == 1
    weights._without_home.cache_clear()
    assert weights.cache_folder() == folder
    folder.chmod(0o777)
    weights._without_home.cache_clear()
    other = weights.cache_folder()
    assert other != folder and other.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    weights._without_home.cache_clear()
    with pytest.raises(UserError, match="DETECTRON2_SAM_CACHE"):
        weights.cache_folder()
    weights._without_home.cache_clear()


def test_official_files_are_described_completely() -> None:
    """Three files at Meta's address, each with a whole SHA-256."""
    assert [file.file_name for file in OFFICIAL.values()] == [
        "sam_vit_b_01ec64.pth",
        "sam_vit_l_0b3195.pth",
        "sam_vit_h_4b8939.pth",
    ]
    assert all(len(bytes.fromhex(file.sha256)) == 32 for file in OFFICIAL.values())


class Trap:
    """Unpickled by an unsafe reader, this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (str(self.path), "w")


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    """A pickle that runs code when loaded is refused, and did not run."""
    torch.save({"weight": Trap(tmp_path / "ran")}, tmp_path / "trap.pth")
    with pytest.raises(UserError, match=r"trap\.pth cannot be read as weights"):
        read_weights(tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"", "cannot be read as weights"),
        ("a.pth", b"<html>not found</html>", "cannot be read as weights"),
        ("a.pth", pickle.dumps([1, 2], protocol=2), "cannot be read as weights"),
        ("a.safetensors", b"\x08", "cannot be read as weights"),
        ("a.pth", b"Moved Permanently. Redirecting to /x", "a text"),
        ("a.pth", b"a: 1", "a text"),
        ("a.pth", b".", "a text"),
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer.*git lfs pull"),
        ("a.pth", b" \n<?xml version='1.0'?>", "web page"),
        ("a.safetensors", b'{"metadata": {}, "weight_map": {}}', "index of several files"),
        ("a.safetensors", b'{"a": 1}', "JSON"),
        ("a.pth", b"\x1f\x8b\x08\x00", "compressed; unpack"),
        ("a.pth", b"a.txt".ljust(257, b"\0") + b"ustar", "tar archive; unpack"),
        ("a.pth", bytes(range(256)), "no .safetensors or .pth file"),
        ("a.safetensors", (99).to_bytes(8, "little") + b"{" + bytes(9), "cannot be read"),
        ("a.safetensors", (1).to_bytes(8, "little") + b"{" + bytes(9), "cannot be read as weights: it is damaged"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """Every way a file can be wrong ends in one line with its path."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_weights(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and "weights_only" not in str(caught.value)


def test_archives_that_hold_no_tensors(tmp_path: Path) -> None:
    """Other files in a ZIP, and a TorchScript program, for which torch advises to run it."""
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("model/weights.bin", b"0" * 99)
    with pytest.raises(UserError, match="unpack it"):
        read_weights(tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("model/data.pkl", b"")
        archive.writestr("model/constants.pkl", b"")
    with pytest.raises(UserError, match="TorchScript.*never run") as caught:
        read_weights(tmp_path / "a.pth")
    assert "weights_only" not in str(caught.value)


def test_the_content_tells_the_format(tmp_path: Path) -> None:
    """Equality: each format under the ending of another, or in capitals, gives the tensors that were saved."""
    state = {"a": torch.arange(3.0)}
    for name in ("a.pth", "a.safetensors", "A.SAFETENSORS", "weights"):
        for save in (torch.save, save_file, partial(torch.save, _use_new_zipfile_serialization=False)):
            save(state, tmp_path / name)
            assert torch.equal(read_weights(tmp_path / name)["a"], state["a"])


def test_pipes_and_folders_are_not_opened(tmp_path: Path) -> None:
    """A pipe would be waited for; a folder's first bytes cannot be read."""
    os.mkfifo(tmp_path / "a.pth")
    with pytest.raises(UserError, match="a named pipe"):
        read_weights(tmp_path / "a.pth")
    with pytest.raises(UserError, match="a folder"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    "state",
    [
        {1: torch.zeros(1)},
        {"a": torch.eye(2).to_sparse()},
        {"a": 1.0},
    ],
    ids=["a number for a name", "sparse", "a number"],
)
def test_what_no_module_can_load_is_refused(state: dict, tmp_path: Path) -> None:
    """State dicts with other keys than names, or other values than plain tensors."""
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth"):
        read_weights(tmp_path / "a.pth")


@pytest.mark.parametrize("value", [np.float64(1.0), Path("a")])
def test_the_python_objects_of_a_file_are_named(value: object, tmp_path: Path) -> None:
    """In place of torch's advice, with its colours, to load them all the same."""
    torch.save({"a": value}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"Python objects \((numpy|pathlib)[\w.]*\).*state dict") as caught:
        read_weights(tmp_path / "a.pth")
    assert "\\x1b" not in str(caught.value) and "weights_only" not in str(caught.value)


def test_only_flat_state_dicts_are_weights(tmp_path: Path) -> None:
    """A training checkpoint or a list of tensors is not mistaken for weights; a missing file is named."""
    for wrong in ({"model": {"weight": torch.zeros(1)}}, [torch.zeros(1)]):
        torch.save(wrong, tmp_path / "a.pth")
        with pytest.raises(UserError, match="nothing but named tensors"):
            read_weights(tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"no weight file .*b\.pth"):
        read_weights(tmp_path / "b.pth")


def test_state_hash_of_a_known_state() -> None:
    """By hand: name, type, shape, then the little-endian bytes of [1, 2] in float16."""
    expected = hashlib.sha256(b"w|torch.float16|(2,)|" + bytes.fromhex("003c0040")).hexdigest()
    assert state_sha256({"w": torch.tensor([1.0, 2.0], dtype=torch.float16)}) == expected


def test_state_hash_sees_every_difference() -> None:
    """Order does not matter; a name, a type, a shape or one bit does. Scalars, empty and bfloat16 tensors have one."""
    base = {"a": torch.arange(4.0), "b": torch.zeros(())}
    assert state_sha256(base) == state_sha256(dict(reversed(base.items())))
    flipped = torch.tensor([0.0, 1.0, 2.0, 3.0000002])
    others = [
        {"c": base["a"], "b": base["b"]},
        {"a": base["a"].reshape(2, 2), "b": base["b"]},
        {"a": base["a"].bfloat16(), "b": base["b"]},
        {"a": base["a"].view(torch.int32), "b": base["b"]},
        {"a": flipped, "b": base["b"]},
        {"a": torch.zeros(0), "b": base["b"]},
    ]
    hashes = {state_sha256(state) for state in (base, *others)}
    assert len(hashes) == len(others) + 1


def test_state_hash_ignores_memory_layout() -> None:
    """A transposed view hashes as the contiguous tensor of the same values."""
    matrix = torch.arange(6.0).reshape(2, 3)
    assert state_sha256({"a": matrix.T}) == state_sha256({"a": matrix.T.contiguous()})


@pytest.mark.parametrize("archive", [True, False])
def test_tuples_that_double_are_refused(tmp_path: Path, archive: bool) -> None:
    """By hand: each of 60 tuples holds the one before it twice, and the last is a key of a dictionary, whose hash would
    take 2⁶⁰ steps. Both formats of torch."""
    content = bytearray(b"\x80\x02}K\x01q\x00")
    for index in range(60):
        content += b"h" + bytes([index]) + b"\x86q" + bytes([index + 1])
        content += b"h" + bytes([index + 1])
    content += b"\x86K\x01s."
    path = tmp_path / "model.pth"
    if archive:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("model/data.pkl", bytes(content))
    else:
        path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"model\.pth.*tuples"):
        read_weights(path)
