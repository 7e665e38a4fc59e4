"""Configuration: what a user's mistakes in a YAML file or on the command line lead to."""

from __future__ import annotations

from pathlib import Path

import pytest

from possam.config import add_possam_config
from sam_common.config import find_config, get_cfg, resolve_device
from sam_common.errors import UserError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_an_unknown_key_names_its_nearest_neighbour(tmp_path: Path) -> None:
    """A misspelt key is an error that says which file and which key was probably meant."""
    path = write(tmp_path / "a.yaml", "SOLVER: {BASE_LRR: 0.1}")
    with pytest.raises(UserError, match=r"a\.yaml: unknown configuration key SOLVER\.BASE_LRR.*SOLVER\.BASE_LR$"):
        get_cfg().merge_from_file(path)


def test_an_unknown_key_on_the_command_line(tmp_path: Path) -> None:
    """Overrides are checked like files."""
    with pytest.raises(UserError, match=r"unknown configuration key SOLVER\.MAX_ITERS.*SOLVER\.MAX_ITER$"):
        get_cfg().merge_from_list(["SOLVER.MAX_ITERS", "5"])


def test_a_key_that_is_a_section_or_goes_below_a_value() -> None:
    """Neither a path through a value nor a half path becomes a traceback."""
    with pytest.raises(UserError):
        get_cfg().merge_from_list(["SOLVER.MAX_ITER.X", "5"])
    with pytest.raises(UserError, match=r"^the command line: SOLVER is a section; .* SOLVER\.\w+$"):
        get_cfg().merge_from_list(["SOLVER", "5"])


def test_a_value_of_another_type_is_refused(tmp_path: Path) -> None:
    """The type of the default decides; the message names the file."""
    path = write(tmp_path / "a.yaml", "SOLVER: {MAX_ITER: many}")
    with pytest.raises(UserError, match="a.yaml"):
        get_cfg().merge_from_file(path)


@pytest.mark.parametrize(
    ("section", "key", "value", "wrong"),
    [
        ("DATASETS", "TEST", [1], "1"),
        ("DATASETS", "TRAIN", [["a"]], r"\['a'\]"),
        ("MODEL", "PIXEL_MEAN", ["a", 1, 1], "'a'"),
    ],
)
def test_a_list_of_something_else_is_refused(section: str, key: str, value: list, wrong: str) -> None:
    """Error, in a file and on the command line: the key and what does not belong there."""
    cfg, message = get_cfg(), rf"{section}\.{key} is a list of .*; {wrong} is none"
    with pytest.raises(UserError, match=message):
        cfg.merge({section: {key: value}}, "a.yaml")
    with pytest.raises(UserError, match=message):
        cfg.merge_from_list([f"{section}.{key}", str(value)])


def test_an_odd_number_of_overrides() -> None:
    """KEY without VALUE is named."""
    with pytest.raises(UserError, match="KEY VALUE"):
        get_cfg().merge_from_list(["SOLVER.MAX_ITER"])


def test_yaml_that_builds_python_objects_is_refused(tmp_path: Path) -> None:
    """No tag runs code: not `!!python/object/apply`, not in a `_BASE_` either."""
    marker = tmp_path / "ran"
    evil = write(tmp_path / "evil.yaml", f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{marker}']")
    with pytest.raises(UserError, match="not plain YAML"):
        get_cfg().merge_from_file(evil)
    child = write(tmp_path / "child.yaml", "_BASE_: evil.yaml")
    with pytest.raises(UserError, match="not plain YAML"):
        get_cfg().merge_from_file(child)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no configuration"),
        ("- a\n- b", "is no configuration"),
        ("some words", "is no configuration"),
        ("1: 2", "is no configuration"),
        ("MODEL: [", "is not plain YAML"),
        ("MODEL: 3", "MODEL is a section"),
        ("SEED: {A: 1}", r"unknown configuration key SEED\.A"),
        ("_BASE_: nowhere.yaml", r"there is no configuration file .*nowhere\.yaml"),
        ("_BASE_: mistake.yaml", "leads back to itself"),
        ("_BASE_: 3", "_BASE_ must be the path"),
        ("_BASE_: [1]", "_BASE_ must be the path"),
        ("_BASE_: base.yaml\nSEED: {A: 1}", "SEED has keys of its own"),
        ("_BASE_: {a: b}", "_BASE_ must be the path"),
        (f"_BASE_: [{', '.join(['base.yaml'] * 33)}]", "_BASE_ must be the path"),
        ("SEED: 2020-01-01", "SEED"),
        ("MODEL: &m\n  SAM: *m", "is not plain YAML"),
        ("SEED: 1\nSEED: 2", "the key SEED stands twice"),
        ("SEED: 99999999999999999999", "SEED is 99999999999999999999"),
        ("SOLVER: {BASE_LR: .nan}", r"SOLVER\.BASE_LR is nan"),
        ("SOLVER: {STEPS: [.nan]}", r"SOLVER\.STEPS"),
        ("MODEL: {1: 2}", r"MODEL\.1"),
        ("SEED:", "SEED is given no value"),
        ("SOLVER.MAX_ITER: 3", "'SOLVER' is no section"),
    ],
)
def test_what_is_no_configuration_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    """Whatever a file holds, and whatever is wrong with its `_BASE_`, the error is one line that names the file."""
    write(tmp_path / "base.yaml", "SEED: 1")
    path = write(tmp_path / "mistake.yaml", text)
    with pytest.raises(UserError, match=message) as error:
        get_cfg().merge_from_file(path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_a_base_may_be_a_shipped_one(tmp_path: Path) -> None:
    """One's own file anywhere may build on `possam_base.yaml`; a file of that name beside it goes first."""
    child = write(tmp_path / "child.yaml", "_BASE_: possam_base.yaml")
    cfg = get_cfg()
    add_possam_config(cfg)
    cfg.merge_from_file(child)
    assert cfg.MODEL.META_ARCHITECTURE == "PosSAM"
    write(tmp_path / "possam_base.yaml", "MODEL: {META_ARCHITECTURE: Mine}")
    cfg.merge_from_file(child)
    assert cfg.MODEL.META_ARCHITECTURE == "Mine"


def test_base_files_are_inherited(tmp_path: Path) -> None:
    """A file overrides its `_BASE_`."""
    write(tmp_path / "base.yaml", "SOLVER: {MAX_ITER: 7, BASE_LR: 0.5}")
    cfg = get_cfg()
    cfg.merge_from_file(write(tmp_path / "child.yaml", "_BASE_: base.yaml\nSOLVER: {MAX_ITER: 9}"))
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR) == (9, 0.5)


def test_a_date_is_the_name_of_a_folder(tmp_path: Path) -> None:
    """Anybody may call a run by its day, in a file and on the command line."""
    cfg = get_cfg()
    cfg.merge_from_file(write(tmp_path / "a.yaml", "OUTPUT_DIR: 2026-11-30"))
    assert cfg.OUTPUT_DIR == "2026-11-30"
    cfg.merge_from_list(["OUTPUT_DIR", "2026-12-01"])
    assert cfg.OUTPUT_DIR == "2026-12-01"


def test_each_base_is_read_once(tmp_path: Path) -> None:
    """Two to the power of 20 ways lead to the last file; what comes later wins, as along one way."""
    for number in range(20):
        write(tmp_path / f"{number}.yaml", f"_BASE_: [{number + 1}.yaml, {number + 1}.yaml]\nSEED: {number}")
    write(tmp_path / "20.yaml", "SEED: 20\nVERSION: 7")
    cfg = get_cfg()
    cfg.merge_from_file(tmp_path / "0.yaml")
    assert (cfg.SEED, cfg.VERSION) == (0, 7)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nan", "SOLVER.BASE_LR"),
        ("[" * 100_000, "SOLVER.BASE_LR"),
        ("{[]: 1}", "SOLVER.BASE_LR"),
        ("None", "SOLVER.BASE_LR is given no value"),
        ("9" * 5000, "SOLVER.BASE_LR"),
        ("9" * 400, "SOLVER.BASE_LR"),
        ("a\0", "SOLVER.BASE_LR"),
    ],
)
def test_overrides_that_mean_nothing(value: str, message: str) -> None:
    """Error, in one line: no number, one without end, brackets without end, what no dictionary takes."""
    with pytest.raises(UserError, match=message):
        get_cfg().merge_from_list(["SOLVER.BASE_LR", value])


def test_a_dumped_configuration_reads_back_equal(tmp_path: Path) -> None:
    """`config.yaml` of an output folder restores every key, the user's own data sets included."""
    cfg = get_cfg()
    cfg.DATASETS.REGISTER = [{"NAME": "mine", "FORMAT": "coco_panoptic", "JSON": "a.json"}]
    again = get_cfg()
    again.merge_from_file(write(tmp_path / "config.yaml", cfg.dump()))
    assert again == cfg


def test_a_missing_file_is_named() -> None:
    """One line with the path, not a FileNotFoundError from the depths."""
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        get_cfg().merge_from_file("nowhere.yaml")


def test_shipped_configurations_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`configs/possam_T.yaml` works whatever the current folder is."""
    monkeypatch.chdir(tmp_path)
    assert find_config("configs/possam_T.yaml") == find_config("possam_T")


def test_cuda_without_a_gpu_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """An explicit `cuda` is not silently replaced; `auto` is."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(UserError, match="MODEL.DEVICE cpu"):
        resolve_device("cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:", "mps", ""])
def test_an_unknown_device_lists_the_choices(name: str) -> None:
    """Neither a torch error nor a device that the engine cannot train on."""
    with pytest.raises(UserError, match="choose auto, cpu, cuda or cuda:N"):
        resolve_device(name)


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two GPUs, cuda:1 is the last."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert resolve_device("cuda:1").index == 1
    with pytest.raises(UserError, match="sees 2 CUDA devices"):
        resolve_device("cuda:2")


def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    """Of the configurations that ship."""
    with pytest.raises(UserError, match=r"there is no configuration file posam_T \(did you mean possam_T\?\)"):
        find_config("posam_T")


@pytest.mark.parametrize("base", ["possam_T", "possam_T.yaml", "configs/possam_T.yaml", "../configs/possam_T"])
def test_a_base_is_found_as_a_configuration_is(tmp_path: Path, base: str) -> None:
    """By the name of a shipped one too, as `--config` takes it."""
    path = write(tmp_path / "mine.yaml", f"_BASE_: {base}\nSOLVER: {{MAX_ITER: 7}}")
    loaded = get_cfg().load_yaml_with_base(str(path))
    assert loaded["SOLVER"]["MAX_ITER"] == 7 and loaded["MODEL"]["SAM"]["SIZE"] == "T"
