"""What is compiled on the machine: built once, and every way in which there is no compiler ends in one line."""

from __future__ import annotations

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
