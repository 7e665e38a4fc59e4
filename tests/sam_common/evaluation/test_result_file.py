"""Result files that grow on disk."""

from __future__ import annotations

import json

import pytest

from sam_common.errors import UserError
from sam_common.evaluation.result_file import ResultFile


def test_a_list_of_all_that_was_appended(tmp_path):
    """Invariant: entries come back in order, whatever they hold; nothing else is left in the folder, which is made."""
    file = ResultFile(tmp_path / "new" / "results.json")
    file.append([{"a": 1}, {"a": "line\nbreak", "b": [1.5, None]}])
    file.append(entry for entry in [{"a": 3}])
    assert not file.path.exists()
    file.join()
    assert json.loads(file.path.read_text()) == [{"a": 1}, {"a": "line\nbreak", "b": [1.5, None]}, {"a": 3}]
    assert [path.name for path in file.path.parent.iterdir()] == ["results.json"]


@pytest.mark.parametrize("head", [None, {}, {"images": [1]}])
def test_empty_files_are_json(tmp_path, head):
    """Edge case: nothing appended gives an empty list, inside of an object where one is asked for."""
    file = ResultFile(tmp_path / "results.json")
    file.join(head, key="annotations")
    assert json.loads(file.path.read_text()) == ([] if head is None else {**head, "annotations": []})


def test_what_an_interrupted_evaluation_left_is_forgotten(tmp_path):
    """Invariant: a new file starts anew, also in a new process after a kill."""
    ResultFile(tmp_path / "results.json").append([{"old": 1}])
    file = ResultFile(tmp_path / "results.json")
    file.append([{"new": 1}])
    file.join({"x": 0}, key="list")
    assert json.loads(file.path.read_text()) == {"x": 0, "list": [{"new": 1}]}


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    """Error: what cannot be written is named."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*results.json: (Not a directory|File exists)"):
        ResultFile(tmp_path / "file" / "results.json").append([{}])


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    """Error: /dev/full takes nothing, as a disk without room; the file is named, and that there is no space."""
    file = ResultFile(tmp_path / "results.json")
    file._part.symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot write .*results.json: No space left on device"):
        file.append([{"a": 1}])


def test_to_join_again_empties_nothing(tmp_path):
    """Who asks an evaluator twice gets the same twice; a new file starts anew."""
    file = ResultFile(tmp_path / "results.json")
    file.append([{"a": 1}])
    for _ in range(2):
        file.join()
        assert json.loads(file.path.read_text()) == [{"a": 1}]
    file = ResultFile(tmp_path / "results.json")
    file.join()
    assert json.loads(file.path.read_text()) == []
