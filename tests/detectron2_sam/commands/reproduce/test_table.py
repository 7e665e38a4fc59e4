"""Files of tables: those that ship are configurations with the papers' rows and numbers, and mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from detectron2_sam.commands.reproduce.table import EMBEDDED, Row, read_table, table_names
from detectron2_sam.methods import full_cfg
from sam_common.config import CfgNode
from sam_common.errors import UserError

PUBLISHED = (
    *(f"amsam-{number}" for number in (1, 2, 3, 4)),
    *("amsam-figure5", "amsam-figure6"),
    *(f"plug-{number}" for number in (1, 2, 3)),
    *(f"possam-{number}" for number in (1, 2, 3, 4, 5, 6, 7)),
)
NAMES = sorted([*PUBLISHED, *EMBEDDED, "ablation-amsam", "ablation-plug", "ablation-possam", "amsam-human"])

TABLE = """
title: "Paper, Table 1: things"
source: nowhere
of: larger
seeds: 2
config: c.yaml
options: [Z, 9]
metrics: [task/M, task/N]
untrained: {1 nothing: []}
trained: {2 more: [X, 1], 3 most: [X, 2]}
paper: {3 most: {task/M: "50.50", "M, large": 60}}
orderings: [2 more > 1 nothing, 3 most > 2 more, 1 nothing > 3 most]
figure: {x: size, lines: {with: {2 more: 2, 3 most: 3}}}
remarks: [This is a remark.]
"""


def resolve(row: Row) -> CfgNode:
    """The configuration that is tested."""
    cfg = full_cfg()
    cfg.merge_from_file(row.training.config)
    cfg.merge_from_list(row.settings)
    return cfg


def test_they_all_ship() -> None:
    """One for each table of the three papers, at both sizes where it is an ablation, and longer ones of ours."""
    assert table_names() == NAMES
    assert {read_table(name).of for name in EMBEDDED} < set(PUBLISHED)
    assert [name for name in NAMES if read_table(name).of] == sorted(EMBEDDED)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_rows_are_configurations(name: str) -> None:
    """Every row of every shipped table merges into a configuration, and no two rows are the same."""
    seen = [resolve(row).dump() for row in read_table(name).rows.values()]
    assert len(set(seen)) == len(seen) >= 3


def test_every_row_of_a_paper_is_in_its_table() -> None:
    """By hand: 16 rows of PosSAM's Tables 4 to 7, 9 of PLUG's 2 and 3, 4 of AM-SAM's 4 with two data sets each."""
    tables = {name: [row for row in read_table(name).rows.values()] for name in PUBLISHED}
    assert [len(tables[f"possam-{number}"]) for number in (4, 5, 6, 7)] == [5, 4, 3, 4]
    assert [len(tables[name]) for name in ("plug-2", "plug-3", "amsam-4")] == [5, 4, 8]


@pytest.mark.parametrize("name", [name for name in NAMES if "amsam" in name])
def test_rows_of_amsam_draw_their_shots_and_see_as_many_as_their_epochs_are(name: str) -> None:
    """The seed draws the shots; an epoch is half as many iterations as shots; all but Figure 5 have 100 epochs."""
    table = read_table(name)
    assert table.seed_keys == ["SEED", "DATASETS.SHOTS_SEED"]
    for row in table.rows.values():
        cfg = resolve(row)
        assert 2 * cfg.TEST.EVAL_PERIOD == cfg.DATASETS.SHOTS
        assert cfg.SOLVER.MAX_ITER == 50 * cfg.DATASETS.SHOTS or "figure5" in name


def test_main_results_are_the_papers() -> None:
    """Spot checks of the printed numbers, with their digits, and of what stands for data and models."""
    printed = read_table("possam-1").paper
    assert str(printed["ViT-H, panoptic"]["panoptic_seg/PQ"]) == "29.2"
    assert str(printed["ViT-L, instances"]["segm/AP"]) == "18.3"
    assert str(printed["ViT-L, panoptic"]["panoptic_seg/PQ"]) == "28.0"
    assert read_table("possam-2").paper["ViT-L"]["panoptic_seg/PQ"] == 30.7
    assert read_table("possam-3").paper["ViT-H, A-847"]["sem_seg/mIoU"] == 14.9
    assert read_table("plug-1").paper["ViT-L, KINS"]["amodal/mIoU_full"] == "88.10"
    assert read_table("amsam-2").paper["AM-SAM, 16 shots"]["few_shot/Dice"] == 93.3
    assert read_table("amsam-4").paper["2 boxes, ISIC 2018"]["few_shot/Dice"] == 67.7


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_tables_have_the_rows_of_the_papers(name: str) -> None:
    """The same labels, and for each the same model and boxes as at the paper's size, but for what all rows share."""
    ours, papers = read_table(name).rows, read_table(read_table(name).of).rows
    variants = {label: [name for name in papers if name == label or name.startswith(f"{label}, ")] for label in ours}
    assert sorted(name for names in variants.values() for name in names) == sorted(papers)
    whole = {label: _read(row) for label, row in ours.items()}
    full = {name: _read(row) for name, row in papers.items()}
    changing = {key for flats in (whole, full) for key in _differing(list(flats.values()))}
    for label, names in variants.items():
        for name in names:
            assert {key: str(whole[label][key]) for key in changing} == {key: str(full[name][key]) for key in changing}


def _read(row: Row) -> dict[str, object]:
    """What tells a row from others: its keys of the model and of the boxes, and how many epochs it trains."""
    cfg = resolve(row)
    kept = {f"MODEL.{key}": value for key, value in _flat(cfg.MODEL).items()}
    if cfg.MODEL.POSSAM.DECODER.NAME == "masked":  # Table 6: it is smaller here, the two-way decoders are not
        kept["MODEL.POSSAM.DECODER.NUM_LAYERS"] = "the size's own"
    return {**kept, "SELECT": cfg.INPUT.BOXES.SELECT, "EPOCHS": cfg.SOLVER.MAX_ITER / cfg.DATASETS.SHOTS}


def _flat(node: CfgNode, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else {f"{prefix}{key}": value}
    return flat


def _differing(flats: list[dict[str, object]]) -> set[str]:
    """Keys that do not have one value in all rows of a table."""
    return {key for key in flats[0] if len({str(flat[key]) for flat in flats}) > 1}


def test_options_are_of_every_row_and_give_way(tmp_path: Path) -> None:
    """A row's own overrides win over those of all rows, those of the command line over both; tests are kept apart."""
    (tmp_path / "table.yaml").write_text(
        "{config: c.yaml, options: [X, 1, Y, 1, Z, 1], metrics: [a/b], trained: {a: [Y, 2, Z, 2], own: d.yaml},"
        " tested: {t: [MODEL.PLUG.TEST.THRESHOLD, 0.5]}}"
    )
    rows = read_table(str(tmp_path / "table.yaml"), ["Z", "3"]).rows
    assert [row.training.config for row in rows.values()] == ["c.yaml", "d.yaml"]
    assert rows["a, t"].training.options == ("X", "1", "Y", "2", "Z", "3")
    assert rows["own, t"].training.options == ("X", "1", "Y", "1", "Z", "3")
    assert {row.tests for row in rows.values()} == {("MODEL.PLUG.TEST.THRESHOLD", "0.5")}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("{metrics: [a/b], train: {}}", "there is no key train; a table has config, figure, "),
        ("[1]", r"it is \[1\]"),
        ("{metrics: [", "cannot be read as plain YAML"),
        ("{config: c.yaml, trained: {a: []}}", "metrics, seed_keys and seeds must be at least one"),
        ("{metrics: [PQ], config: c.yaml, trained: {a: []}}", "task/metric, such as panoptic_seg/PQ, not PQ"),
        ("{metrics: [1], config: c.yaml, trained: {a: []}}", r"\[1\] must be a list of words"),
        ("{metrics: [a/b], config: c.yaml, trained: {a: []}, tested: {a: X}}", "tested, a: give a list of KEY, VALUE"),
        ("{metrics: [a/b], config: c.yaml, trained: {a: []}, variants: {}}", "variants and tested must have at least"),
        ("{metrics: [a/b], config: c.yaml, trained: {a: []}, seed_keys: SEED}", "seed_keys must be of type list"),
        ("{metrics: [a/b], config: c.yaml, trained: {a: []}, seed_keys: []}", "seed_keys and seeds must be at least"),
        ("{metrics: [a/b], config: c.yaml, trained: {}}", "there is no row; trained, variants and tested must have"),
        ("{metrics: [a/b], config: c.yaml, trained: [a]}", r"trained must be of type dict, not \['a'\]"),
        ("{metrics: [a/b], config: c.yaml, trained: {a: }}", "trained, a: give a list of KEY, VALUE, ..., not None"),
        ("{metrics: [a/b], trained: {a: [X, 1]}}", "trained, a: give the name of a configuration, or a config"),
        ("{metrics: [a/b], config: c.yaml, trained: {a: [X]}}", "trained, a: give a list of KEY, VALUE"),
        ("{metrics: [a/b], config: c.yaml, trained: {a: []}, tested: {a: [X]}}", "tested, a: give a list of KEY, VALU"),
        ("{metrics: [a/b], config: c.yaml, trained: {a: []}, minutes: few}", "minutes must be of type float"),
    ],
)
def test_wrong_rows_are_one_line(rows: str, message: str, tmp_path: Path) -> None:
    """What means nothing is named, not ignored."""
    assert_refused(tmp_path, rows, message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title:", "- title:", "cannot be read as plain YAML"),
        ("seeds: 2", "seeds: 0", "seeds must be at least one"),
        ("metrics:", "metric:", "there is no key metric"),
        ("paper: {3 most", "paper: {4 all", "paper has a number of 4 all, task/M: no row, or no metric"),
        ("{task/M:", "{task/mIoU:", "a number of 3 most, task/mIoU: no row, or no metric, is called that"),
        ('{task/M: "50.50", "M, large": 60}', "50", "paper must give rows the numbers of columns"),
        ("3 most > 2 more", "3 most > 4 all", "BETTER > WORSE, not '3 most > 4 all'"),
        ("3 most > 2 more", "3 most", "BETTER > WORSE, not '3 most'"),
        ("{2 more: 2,", "{most: 2,", "a figure gives rows a number, their x, not most 2"),
        ("{2 more: 2,", "{2 more: two,", "a figure gives rows a number, their x, not 2 more 'two'"),
        ("x: size, ", "", "figure is told by x and lines"),
        ("[This is a remark.]", "a remark", "remarks must be of type list, not 'a remark'"),
        ("{2 more: [X, 1],", "{1 nothing: [], 2 more: [X, 1],", "two rows are called 1 nothing"),
        ("remarks:", "judged: [task/O]\nremarks:", "must be among the metrics, not task/O"),
    ],
)
def test_a_wrong_table_is_one_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    """What is no table, and names that no row and no metric has."""
    (tmp_path / "right.yaml").write_text(TABLE)
    assert list(read_table(str(tmp_path / "right.yaml")).rows) == ["1 nothing", "2 more", "3 most"]
    assert_refused(tmp_path, TABLE.replace(old, new), message)


def assert_refused(folder: Path, text: str, message: str) -> None:
    """Error: one line that names the file and says what is wrong with it."""
    (folder / "table.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_table(str(folder / "table.yaml"))
    assert str(caught.value).startswith(f"{folder}/table.yaml") and "\n" not in str(caught.value)
