"""Which files are predicted, and what their results are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from detectron2_sam.commands.predict import inputs
from detectron2_sam.commands.predict.inputs import find_inputs
from sam_common.errors import UserError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "sub/c.mp4", "sub/deep/d.jpeg", ".git/e.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def names(*given: str | Path, **options) -> list[str]:
    return [source.relative for source in find_inputs([str(path) for path in given], **options).inputs]


def test_folders_files_and_globs(tree: Path) -> None:
    """Derived by hand: sorted, hidden ones and texts left out, subfolders on demand, a file once."""
    assert names(tree) == ["a.PNG", "b.jpg"]
    assert names(tree, recursive=True) == ["a.PNG", "b.jpg", "sub/c.mp4", "sub/deep/d.jpeg"]
    assert names(tree / "*.jpg", tree / "a.PNG", tree) == ["b.jpg", "a.PNG"]
    assert names(tree / "**" / "*.jp*g") == ["b.jpg", "sub/deep/d.jpeg"]
    assert names(tree / "notes.txt") == ["notes.txt"], "a file that is named is taken, whatever its suffix"
    assert names(tree / "sub" / "deep") == ["d.jpeg"]


def test_a_bracket_in_a_name_is_a_bracket(tmp_path: Path) -> None:
    """Edge case: a file that is there is that file, not a pattern."""
    (tmp_path / "a[1].jpg").write_bytes(b"")
    assert names(tmp_path / "a[1].jpg") == ["a[1].jpg"]


def test_paths_are_counted_from_the_common_folder(tree: Path) -> None:
    """Derived by hand: two folders keep their own names, so that equal file names do not meet."""
    assert names(tree / "sub" / "deep", tree / "sub" / "c.mp4") == ["deep/d.jpeg", "c.mp4"]
    sources = find_inputs([str(tree)], recursive=True).inputs
    assert [source.name for source in sources] == ["a", "b", "sub/c", "sub/deep/d"]
    assert [source.is_video for source in sources] == [False, False, True, False]
    assert all(".." not in source.name and not os.path.isabs(source.name) for source in sources)


def test_equal_names_keep_their_suffix(tmp_path: Path) -> None:
    """Derived by hand: 1.jpg and 1.png do not overwrite each other's results, nor does 1.JPG."""
    for name in ("1.jpg", "1.png", "2.png"):
        (tmp_path / name).write_bytes(b"")
    assert [source.name for source in find_inputs([str(tmp_path)]).inputs] == ["1.jpg", "1.png", "2"]


def test_what_is_skipped_is_counted(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Derived by hand: by suffix, with what brings a missing decoder; what is named elsewhere is not skipped."""
    for name in ("IMG_1.HEIC", "IMG_2.heic", "README", "b.txt"):
        (tree / name).write_bytes(b"")
    monkeypatch.setattr(inputs, "picture_suffixes", lambda: frozenset((".jpg", ".png")))
    found = find_inputs([str(tree), str(tree / "b.txt")])
    assert found.describe_skipped() == (
        "5 files skipped: 2 .heic (pip install pillow-heif), 1 .txt, 1 hidden, 1 without a suffix"
    )
    assert [source.relative for source in found.inputs] == ["a.PNG", "b.jpg", "b.txt"]
    assert not find_inputs([str(tree / "sub" / "deep" / "d.jpeg")]).skipped
    with pytest.raises(UserError, match=r"no picture or video \(1 file skipped: 1 \.gif\)"):
        (tree / "sub" / "deep" / "d.jpeg").rename(tree / "sub" / "deep" / "d.gif")
        find_inputs([str(tree / "sub" / "deep")])


@pytest.mark.parametrize(
    ("name", "stem_bytes"),
    [("m" * 251 + ".jpg", 251), ("漢" * 83 + ".jpeg", 249), ("m" * 251 + ".avi", 249), ("m" * 255, 251)],
)
def test_long_names(tmp_path: Path, name: str, stem_bytes: int) -> None:
    """Edge case: names as long as a file system takes: results have names of their own that it takes, too."""
    (tmp_path / name).write_bytes(b"")
    (source,) = find_inputs([str(tmp_path / name)]).inputs
    assert len(os.fsencode(source.name)) == stem_bytes
    for suffix in (".mp4", ".jsonl") if source.is_video else (".png",):
        (tmp_path / f"{source.name}{suffix}").write_bytes(b"")


def test_long_names_that_are_alike_stay_apart(tmp_path: Path) -> None:
    """Two names of 255 bytes that differ in the suffix only: each result keeps it or a mark."""
    for suffix in (".jpg", ".png"):
        (tmp_path / ("m" * 251 + suffix)).write_bytes(b"")
    first, second = find_inputs([str(tmp_path)]).inputs
    assert first.name != second.name and len(first.name) == len(second.name) == 251


def test_a_path_that_no_file_can_have(tmp_path: Path) -> None:
    """Error: left to its reader, as any file that is not there."""
    assert names(tmp_path / ("x" * 300)) == ["x" * 300]


def test_results_of_an_earlier_run_are_left_out(tree: Path) -> None:
    """Invariant: with the output folder inside the input folder a second run finds what the first did."""
    before = names(tree, recursive=True)
    (tree / "out" / "sub").mkdir(parents=True)
    (tree / "out" / "sub" / "c.png").write_bytes(b"")
    assert names(tree, recursive=True, leave_out=tree / "out") == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("sub/*.gif", "there is no picture or video"),
        ("sub/deep/..", "--recursive looks into its subfolders too"),
        (".git/none", None),
    ],
)
def test_nothing_found_is_an_error(tree: Path, given: str, message: str | None) -> None:
    """Error: a pattern and a folder without pictures; a file that is not there is left to its reader to name."""
    (tree / "sub" / "c.mp4").unlink()
    if message is None:
        assert names(tree / given) == ["none"]
        return
    with pytest.raises(UserError, match=message) as caught:
        names(tree / given)
    assert "\n" not in str(caught.value)
