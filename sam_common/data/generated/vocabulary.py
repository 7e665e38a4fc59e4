"""The classes of the generated world: 48 things, each a pattern, a colour and a shape, and 8 kinds of stuff.

A thing class is a composition, so a class can be *unseen* while each of its words is seen: no training picture shows
a "plain red circle", but plain red stars and striped blue circles are there. Unseen are the 16 things with
(shape + texture) mod 3 = 0, where texture = 2·pattern + colour, and two kinds of stuff.
"""

from __future__ import annotations

import functools

from sam_common.structures import Category, Vocabulary

PATTERNS = ("plain", "striped", "dotted", "checkered")
COLOURS = ("red", "blue")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
STUFF = ("sky", "grass", "water", "sand", "brick", "gravel", "wood", "snow")
UNSEEN_STUFF = ("gravel", "snow")

_SYNONYMS = {
    "circle": ("disc",),
    "cross": ("plus",),
    "grass": ("lawn",),
    "brick": ("brick wall",),
    "gravel": ("pebbles",),
    "wood": ("planks",),
}


@functools.cache
def world_vocabulary() -> Vocabulary:
    """All 56 classes, the 48 things first; `id` is the index + 1, as the written files have it."""
    names = [f"{pattern} {colour} {shape}" for pattern in PATTERNS for colour in COLOURS for shape in SHAPES]
    things = [Category(name, _synonyms(name), True, index + 1) for index, name in enumerate(names)]
    stuff = [Category(name, _synonyms(name), False, len(things) + index + 1) for index, name in enumerate(STUFF)]
    return (*things, *stuff)


@functools.cache
def seen_vocabulary() -> Vocabulary:
    """The 38 classes that training pictures show, with the ids of `world_vocabulary`."""
    return tuple(category for category in world_vocabulary() if _is_seen(category))


def _is_seen(category: Category) -> bool:
    if not category.is_thing:
        return category.name not in UNSEEN_STUFF
    pattern, colour, shape = category.name.split()
    texture = PATTERNS.index(pattern) * len(COLOURS) + COLOURS.index(colour)
    return (SHAPES.index(shape) + texture) % 3 != 0


def _synonyms(name: str) -> tuple[str, ...]:
    """The name itself and the name with its last word replaced: "plain red circle", "plain red disc"."""
    *words, last = name.split()
    return (name, *(" ".join((*words, other)) for other in _SYNONYMS.get(last, ())))
