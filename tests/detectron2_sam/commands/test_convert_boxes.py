"""Pickled boxes become JSON, and nothing in the pickle runs."""

from __future__ import annotations

import collections
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detectron2_sam.commands import convert_boxes
from sam_common.boxes.box_files import read_box_file
from sam_common.errors import UserError
from sam_common.io.plain_pickle import read_plain_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def _pickled(folder: Path, content: Any, protocol: int = 4) -> Path:
    (folder / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    return folder / "a.pkl"


def _equal(one: Any, other: Any) -> bool:
    if isinstance(other, np.ndarray):
        return isinstance(one, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in other)
    if isinstance(other, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(_equal, one, other))
    return type(one) is type(other) and one == other


SHARED = [1.5, -2]
PLAIN: dict[str, Any] = {
    "numbers": [0, 1, 255, 256, 70_000, -1, 2**40, -(2**70), 0.1, float("inf"), True, False, None],
    "texts": ["", "a", "ü" * 300, "日本", "quote ' and \\ and \n"],
    "bytes": [b"", b"ab\xff", b"x" * 300],
    "containers": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], {}, {"a": {"b": [1]}, 3: "c"}, [[]] * 3],
    "shared": [SHARED, SHARED, {"x": SHARED}],
    "many": list(range(3000)),
}
ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    np.arange(4, dtype=">i4"),
    np.zeros((0, 4)),
    np.array([True, False]),
    np.array(3.5),
    np.arange(24, dtype=np.uint8).reshape(2, 3, 4)[:, ::2],
    np.arange(5, dtype=np.float16),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_is_read_as_pickle_reads_it(tmp_path: Path, protocol: int) -> None:
    """Equality with unpickling, in every protocol, types included."""
    assert _equal(read_plain_pickle(_pickled(tmp_path, PLAIN, protocol)), PLAIN)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_arrays_are_read_as_pickle_reads_them(tmp_path: Path, protocol: int) -> None:
    """Equality with unpickling: order, byte order, empty, scalar, strided; alone, in containers, and twice the same."""
    for array in ARRAYS:
        assert _equal(read_plain_pickle(_pickled(tmp_path, array, protocol)), array)
    content = {"list": [*ARRAYS, ARRAYS[0]], "tuple": (ARRAYS[1], "x")}
    assert _equal(read_plain_pickle(_pickled(tmp_path, content, protocol)), content)
    scalars = [np.float32(1.5), np.int64(-3), np.bool_(True)]
    assert read_plain_pickle(_pickled(tmp_path, scalars, protocol)) == [1.5, -3, True]


def test_numpy_before_2_named_its_core_otherwise(tmp_path: Path) -> None:
    """Equality: the same bytes with `numpy.core` in place of `numpy._core`, as numpy 1 wrote them."""
    content = pickle.dumps(ARRAYS[0], 2)
    (tmp_path / "old.pkl").write_bytes(content.replace(b"numpy._core", b"numpy.core"))
    assert _equal(read_plain_pickle(tmp_path / "old.pkl"), ARRAYS[0])


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("nested", [False, True])
def test_a_malicious_pickle_runs_nothing(tmp_path: Path, protocol: int, nested: bool) -> None:
    """Error: os.system is refused by its name; the file that it would have made is not there."""
    evil = _Evil(tmp_path / "made")
    path = _pickled(tmp_path, {"a.jpg": [np.ones((1, 4)), evil]} if nested else evil, protocol)
    with pytest.raises(UserError, match=r"a\.pkl is refused: it holds the name (posix|nt)\.system") as error:
        convert_boxes.main([str(path), "--output", str(tmp_path / "out.json")])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "made").exists() and not (tmp_path / "out.json").exists()


REFUSED: dict[str, tuple[bytes, str]] = {
    "eval": (b"c__builtin__\neval\n(S'1'\ntR.", r"the name __builtin__\.eval"),
    "getattr": (b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.", r"the name builtins\.getattr"),
    "INST": (b"(S'ls'\nios\nsystem\n.", "the instruction INST"),
    "OBJ": (b"(cos\nsystem\nS'ls'\no.", r"the name os\.system"),
    "NEWOBJ": (b"\x80\x02cnumpy\nndarray\n)\x81.", "the instruction NEWOBJ"),
    "call of the array type": (b"cnumpy\nndarray\n)R.", "a call of something"),
    "call of a text": (b"S'x'\n)R.", "a call of something"),
    "state of a list": (b"]}b.", "a state of list"),
    "persistent id": (b"Px\n.", "the instruction PERSID"),
    "extension": (b"\x80\x02\x82\x01.", "the instruction EXT1"),
    "other attribute of numpy": (b"cnumpy\nload\n.", r"the name numpy\.load"),
    "array of objects": (pickle.dumps(np.array([[1], {}], dtype=object), 2), "a numpy array of 'O8'"),
    "array of texts": (pickle.dumps(np.array(["a"]), 2), "a numpy array of 'U1'"),
    "a set": (pickle.dumps({1}, 4), "the instruction EMPTY_SET"),
    "a class": (pickle.dumps(collections.Counter("a"), 4), r"the name collections\.Counter"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_everything_else_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    """Error: the instruction or the name, in one line."""
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_plain_pickle(tmp_path / "a.pkl")
    assert "\n" not in str(error.value)


DAMAGED: dict[str, bytes] = {
    "cut": pickle.dumps(PLAIN, 4)[:100],
    "empty": b"",
    "no pickle": b'{"a": 1}',
    "empty stack": b"a.",
    "two values": b"I1\nI2\n.",
    "nothing left": b"(.",
    "unknown memory": b"h\x05.",
    "no mark": b"]I1\ne.",
    "odd entries": b"}(I1\nu.",
    "list as key": b"}]I1\ns.",
    "array without contents": pickle.dumps(ARRAYS[0], 2)[:-40] + b".",
    "wrong arguments": b"c_codecs\nencode\n(I1\nI2\ntR.",
    "shape of a text": b"cnumpy.core.numeric\n_frombuffer\n(I1\nI2\nS'x'\nI3\ntR.",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_pickles(tmp_path: Path, content: bytes) -> None:
    """Error: one line, whatever is on the stack."""
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.pkl") as error:
        convert_boxes.main([str(tmp_path / "a.pkl"), "--output", str(tmp_path / "out.json")])
    assert "\n" not in str(error.value)


def test_a_list_that_contains_itself(tmp_path: Path) -> None:
    """Error: it has no end."""
    content: list[Any] = []
    content.append(content)
    with pytest.raises(UserError, match="levels deep"):
        convert_boxes.main([str(_pickled(tmp_path, content)), "--output", str(tmp_path / "out.json")])


def test_both_forms_become_box_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Round trip: arrays by file name, with scores, in either kind of corners; COCO results with numpy's numbers."""
    out = tmp_path / "out.json"
    arrays = {"a.jpg": np.array([[1, 2, 4, 6, 0.5]], np.float32), "b.jpg": np.zeros((0, 5))}
    convert_boxes.main([str(_pickled(tmp_path, arrays)), "--output", str(out)])
    assert capsys.readouterr().out == f"1 boxes of 2 images → {out}\n"
    (found,) = [boxes for boxes in read_box_file(out).values() if len(boxes)]
    assert found.boxes.tolist() == [[1, 2, 4, 6]] and found.scores.tolist() == [0.5]
    convert_boxes.main([str(_pickled(tmp_path, arrays)), "--output", str(out), "--xywh"])
    assert read_box_file(out)["a.jpg"].boxes.tolist() == [[1, 2, 5, 8]]
    results = [{"image_id": np.int64(7), "bbox": np.array([1.0, 2, 3, 4]), "score": np.float32(0.5)}]
    convert_boxes.main([str(_pickled(tmp_path, results)), "--output", str(out)])
    assert json.loads(out.read_text()) == [{"image_id": 7, "bbox": [1, 2, 3, 4], "score": 0.5}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a.jpg": [[3, 0, 1, 1]]}, r"a\.pkl, 'a\.jpg', box 0: .* has x1 < x0"),
        ({"a.jpg": b"x"}, "holds bytes"),
        ({(1, 2): []}, "neither texts nor numbers"),
        ([[np.ones((1, 5))]], "entry 0: 'image_id' is missing"),
        ({}, "holds no boxes"),
    ],
)
def test_contents_that_are_no_boxes(tmp_path: Path, content: Any, message: str) -> None:
    """Error: what is wrong is told of the pickled file, and nothing is written."""
    with pytest.raises(UserError, match=message) as error:
        convert_boxes.main([str(_pickled(tmp_path, content)), "--output", str(tmp_path / "out.json")])
    assert "\n" not in str(error.value) and not list(tmp_path.glob("*.json"))
    with pytest.raises(UserError, match="ends with .json"):
        convert_boxes.main([str(tmp_path / "a.pkl"), "--output", str(tmp_path / "out.csv")])


def test_lists_that_stand_in_a_thousand_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Error, at once: four kilobytes of lists that hold one list again and again would be 10¹⁵ numbers."""
    monkeypatch.setattr(convert_boxes, "_MOST", 10_000)
    rows: object = [1.0]
    for _ in range(5):
        rows = [rows] * 1000
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a.png": rows}))
    with pytest.raises(UserError, match=r"a\.pkl holds more than 10,000 values"):
        convert_boxes.main([str(tmp_path / "a.pkl"), "--output", str(tmp_path / "a.json")])


@pytest.mark.parametrize("around", [b"]%sa.", b"}(%sK\x01u."], ids=["value", "key"])
def test_tuples_of_one_tuple(around: bytes, tmp_path: Path) -> None:
    """Error, at once: neither the hash nor the text of something 2⁶⁰ long is asked for."""
    deep: object = ()
    for _ in range(60):
        deep = (deep, deep)
    built = pickle.dumps(deep, protocol=2)[2:-1]
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + around % built)
    with pytest.raises(UserError, match=r"a\.pkl"):
        convert_boxes.main([str(tmp_path / "a.pkl"), "--output", str(tmp_path / "a.json")])
