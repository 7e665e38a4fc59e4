"""What is compiled on the machine: built once, and every way in which there is no compiler ends in one line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sam_common.io import native

COMPILER = next((name for name in native.COMPILERS if native.shutil.which(name)), None)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_SAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(native.KERNELS_VARIABLE, raising=False)


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "answer.cpp"
    path.write_text('extern "C" int answer() { return 42; }')
    return path


@pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler: what it compiles is NOT tested")
def test_built_once_and_again_when_the_source_changes(source, tmp_path, monkeypatch):
    """The second call finds the first one's file; another source gets a file of its own, the old one stays."""
    assert native.build(source).answer() == 42
    (built,) = (tmp_path / "cache" / "kernels").iterdir()
    before = built.stat().st_mtime_ns
    assert native.build(source).answer() == 42 and built.stat().st_mtime_ns == before
    source.write_text('extern "C" int answer() { return 43; }')
    assert native.build(source).answer() == 43
    assert len(list(built.parent.iterdir())) == 2


@pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler: its errors are NOT tested")
def test_what_does_not_compile_is_told_in_one_line_and_leaves_nothing(source, tmp_path):
    """Error: the compiler's first complaint, no half file in the cache."""
    source.write_text("this is no C++")
    with pytest.raises(native.NoKernel, match="failed: .*error") as raised:
        native.build(source)
    assert "\n" not in str(raised.value)
    assert not list((tmp_path / "cache" / "kernels").iterdir())


def test_without_a_compiler(source, monkeypatch):
    """Error: an empty PATH; the reason is remembered, so nobody looks twice."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    for _ in range(2):
        with pytest.raises(native.NoKernel, match="no C"):
            native.load(source)
    monkeypatch.setenv("CXX", sys.executable)  # something that is no compiler
    with pytest.raises(native.NoKernel, match="failed: "):
        native.build(source)


def test_switched_off(source, monkeypatch):
    """The variable wins over what there is."""
    monkeypatch.setenv(native.KERNELS_VARIABLE, "pytorch")
    with pytest.raises(native.NoKernel, match="DETECTRON2_SAM_KERNELS is pytorch"):
        native.load(source)


@pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler: a cache that takes nothing is NOT tested")
def test_a_cache_that_cannot_be_written(source, tmp_path, monkeypatch):
    """Error: a file stands where the cache should be."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("DETECTRON2_SAM_CACHE", str(tmp_path / "file"))
    with pytest.raises(native.NoKernel, match="cannot write"):
        native.build(source)


needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler: its cache is NOT tested")


def replace(path: Path, content: bytes) -> None:
    """By another file: what is loaded of the old one must not change."""
    path.unlink()
    path.write_bytes(content)


@needs_compiler
@pytest.mark.parametrize("content", [b"", b"junk", None], ids=["empty", "junk", "cut"])
def test_a_damaged_build_is_made_anew(content, source, tmp_path):
    """What a power cut left in the place of a build is deleted; the new one has the same bytes and name."""
    native.build(source)
    (built,) = (tmp_path / "cache" / "kernels").iterdir()
    whole = built.read_bytes()
    replace(built, whole[: len(whole) // 2] if content is None else content)
    assert native.build(source).answer() == 42
    (again,) = built.parent.iterdir()
    assert again == built and again.read_bytes() == whole


@needs_compiler
def test_what_others_may_have_written_is_not_loaded(source, tmp_path, caplog):
    """A folder that all may write to, below it one of the user's: built apart, one warning, nothing taken or left; a
    file that others may write is replaced."""
    native.build(source)
    (built,) = (tmp_path / "cache" / "kernels").iterdir()
    built.chmod(0o666)
    assert native.build(source).answer() == 42
    (built,) = (tmp_path / "cache" / "kernels").iterdir()
    assert not built.stat().st_mode & 0o022
    replace(built, b"not looked at")
    (tmp_path / "cache").chmod(0o777)
    for _ in range(2):
        assert native.build(source).answer() == 42
    assert built.read_bytes() == b"not looked at"
    (warned,) = caplog.messages
    assert str(built.parent) in warned and "DETECTRON2_SAM_CACHE" in warned
    (tmp_path / "cache").chmod(0o1777)  # as /tmp is
    assert native.build(source).answer() == 42 and b"ELF" in built.read_bytes()[:4]


@needs_compiler
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_the_folder_of_another_user_is_not_used(source, tmp_path):
    """A stranger's folder is as good as one that all may write to; the user's own with an open umask is closed."""
    (tmp_path / "cache" / "kernels").mkdir(parents=True)
    (tmp_path / "cache" / "kernels").chmod(0o775)
    assert native.build(source).answer() == 42
    assert (tmp_path / "cache" / "kernels").stat().st_mode & 0o777 == 0o755
    os.chown(tmp_path / "cache" / "kernels", 12345, -1)
    (built,) = (tmp_path / "cache" / "kernels").iterdir()
    replace(built, b"not looked at")
    assert native.build(source).answer() == 42 and built.read_bytes() == b"not looked at"
