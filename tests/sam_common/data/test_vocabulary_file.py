"""Names in the grammar of vocabularies, the shipped vocabularies, and words for the classes of a data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sam_common.data.coco_json import words_from_name
from sam_common.data.vocabulary_file import parse_vocabulary, with_words
from sam_common.errors import UserError
from sam_common.evaluation.class_groups import seen_classes
from sam_common.io.resources import resource
from sam_common.structures import Category, Vocabulary


def _shipped(name: str) -> Vocabulary:
    return parse_vocabulary(resource(f"configs/vocabularies/{name}.txt"))


def test_a_name_is_no_word() -> None:
    """Derived by hand: `name =` names the class, its words alone are looked for; blanks do not count."""
    vocabulary = parse_vocabulary("wall-brick = brick wall|wall of bricks, sky:stuff; dog|puppy")
    assert vocabulary == (
        Category("wall-brick", ("brick wall", "wall of bricks"), False, 0),
        Category("sky", ("sky",), False, 1),
        Category("dog", ("dog", "puppy"), True, 2),
    )


def test_a_mark_at_the_beginning_is_no_word(tmp_path: Path) -> None:
    """Edge case: Notepad saves UTF-8 with a byte order mark."""
    (tmp_path / "words.txt").write_text("dog|puppy\n", encoding="utf-8-sig")
    assert parse_vocabulary(tmp_path / "words.txt") == (Category("dog", ("dog", "puppy"), True, 0),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("= dog", "empty word in '= dog'"),
        ("dog =", "empty word"),
        ("dog = puppy|", "empty word"),
        ("a = dog, A = cat", "two classes are called 'A'"),
        ("dog = puppy, wolf = Puppy", "the word 'Puppy' is given twice"),
    ],
)
def test_wrong_names(text: str, message: str) -> None:
    """Error: no name, no word, one name or one word for two classes; compared without case."""
    with pytest.raises(UserError, match=message):
        parse_vocabulary(text)


def test_shipped_vocabularies() -> None:
    """COCO panoptic has 80 things and 53 stuff, ADE20K-150 has 100 things and 50 stuff, in the official order."""
    coco, ade = _shipped("coco"), _shipped("ade20k")
    assert [sum(c.is_thing for c in vocabulary) for vocabulary in (coco, ade)] == [80, 100]
    assert (len(coco), len(ade)) == (133, 150)
    assert [coco[index].name for index in (0, 79, 80, 132)] == ["person", "toothbrush", "banner", "rug-merged"]
    assert [ade[index].name for index in (0, 6, 7, 149)] == ["wall", "road", "bed", "flag"]
    # thing k of ADE20K's instance annotation is the k-th thing: lines of the official categoryMapping.txt
    things = [index + 1 for index, category in enumerate(ade) if category.is_thing]
    assert [things[k - 1] for k in (1, 2, 5, 18, 57, 74, 100)] == [8, 9, 15, 36, 89, 117, 150]


def test_coco_is_the_official_list(samples: Path) -> None:
    """Equality with COCO's own list: names, order, things and stuff; all but four classes keep their own word."""
    official = json.loads((samples / "coco_panoptic" / "panoptic_coco_categories.json").read_text())
    coco = _shipped("coco")
    assert [(c.name, int(c.is_thing)) for c in coco] == [(c["name"], c["isthing"]) for c in official]
    without = {c.name for c in coco if not set(words_from_name(c.name, c.is_thing)) & set(c.synonyms)}
    assert without == {"orange", "remote", "light", "net"}  # made clearer: "orange fruit", "tv remote", "lamp"


def test_vocabularies_of_semantic_sets() -> None:
    """The classes of A-847, PC-459, PC-59, PAS-20 and PAS-21: how many, and that the files agree with each other."""
    ade, context, frequent, voc, with_background = (
        _shipped(name)
        for name in ("ade20k_full", "pascal_context459", "pascal_context59", "pascal_voc20", "pascal_voc21")
    )
    assert [len(v) for v in (ade, context, frequent, voc, with_background)] == [847, 459, 59, 20, 21]
    # MaskFormer's order of the 847, by numbers of ADE20K's own files
    lines = resource("configs/vocabularies/ade20k_full_ids.txt").read_text(encoding="utf-8").splitlines()
    numbers = [line.split(maxsplit=1) for line in lines if not line.startswith("#")]
    assert [name for _, name in numbers] == [category.name for category in ade]
    assert len({number for number, _ in numbers}) == 847
    assert numbers[11] == ["1831", "person"] and numbers[99][0] == "3144" and numbers[846] == ["3148", "adding machine"]
    # lines of the official labels.txt of PASCAL-Context, in which the 59 have the order of the 459
    assert [context[number - 1].name for number in (2, 259, 431, 458, 459)] == [
        *("aeroplane", "mountain", "unknown", "wood", "wool")
    ]
    names = [category.name for category in context]
    places = [names.index(category.name) + 1 for category in frequent]
    assert places == sorted(places) and places[:3] + places[-3:] == [2, 9, 18, 445, 454, 458]
    assert with_background[0].name == "background" and with_background[1].synonyms == voc[0].synonyms
    assert [category.name for category in with_background[1:]] == [category.name for category in voc]


def test_ade20k_seen_from_coco() -> None:
    """The published split: 64 of the 150 classes share a word with COCO's, 86 do not; the shipped list is that."""
    ade = _shipped("ade20k")
    seen = seen_classes(ade, _shipped("coco")).tolist()
    assert (sum(seen), len(seen) - sum(seen)) == (64, 86)
    listed = [category.name for category in _shipped("ade20k_seen_from_coco")]
    assert listed == [category.name for category, is_seen in zip(ade, seen, strict=True) if is_seen]


def test_words_by_name_part_of_name_or_word() -> None:
    """Derived by hand: "road, route" is "road", "windowpane" is a word of "window"; the rest of the class stays."""
    words = parse_vocabulary("road = road|street:stuff; window = windowpane|window; house = house exterior")
    given = (
        Category("road, route", ("road", "route"), True, 7),
        Category("Windowpane", ("windowpane",), False, 3),
        Category("house", ("house",)),
    )
    assert with_words(given, words, "words.txt") == (
        Category("road, route", ("road", "street"), True, 7),
        Category("Windowpane", ("windowpane", "window"), False, 3),
        Category("house", ("house exterior",)),
    )


def test_a_class_without_words() -> None:
    """Error: a class that the file lacks is named."""
    with pytest.raises(UserError, match=r"words\.txt has no line for the class 'lamp'"):
        with_words((Category("lamp", ("lamp",)),), parse_vocabulary("dog"), "words.txt")


def test_ade20k_in_the_names_of_others() -> None:
    """The names of Detectron2's list ("road, route"), and those in which the official instance files differ from it."""
    ade = {category.name: category for category in _shipped("ade20k")}
    theirs = {
        "road, route": "road",
        "blind, screen": "blind",
        "screen": "screen",
        "buffet, counter, sideboard": "buffet",
        "counter": "counter",
        "windowpane": "window",
        "bathtub": "tub",
        "railing": "rail",
        "streetlight": "street lamp",
        "television receiver": "tv",
        "airplane": "plane",
        "apparel": "clothes",
        "ashcan": "trash can",
    }
    named = with_words(tuple(Category(name, (name,)) for name in theirs), tuple(ade.values()), "ade20k.txt")
    assert [category.synonyms for category in named] == [ade[name].synonyms for name in theirs.values()]
