"""The groups of classes that a report gives means for."""

from __future__ import annotations

import torch
from torch import Tensor

from sam_common.structures import Vocabulary

GROUPS = {"all": "", "things": "_th", "stuff": "_st", "seen": "_seen", "unseen": "_unseen"}
"""Name of a group of classes -> suffix of its metrics (`PQ_th` is the PQ of things)."""


def seen_classes(vocabulary: Vocabulary, training_vocabulary: Vocabulary) -> Tensor:
    """[C] bool: a class is seen iff it shares a synonym, without case and outer blanks, with a training class."""
    words = [{word.strip().lower() for word in category.synonyms} for category in (*vocabulary, *training_vocabulary)]
    trained = set().union(*words[len(vocabulary) :])
    return torch.tensor([bool(own & trained) for own in words[: len(vocabulary)]], dtype=torch.bool)


def class_groups(vocabulary: Vocabulary, training_vocabulary: Vocabulary | None) -> dict[str, Tensor]:
    """[C] bool per group of `GROUPS`; `seen` and `unseen` need the classes that the model was trained on."""
    things = torch.tensor([category.is_thing for category in vocabulary], dtype=torch.bool)
    groups = {"all": torch.ones_like(things), "things": things, "stuff": ~things}
    if training_vocabulary is not None:
        seen = seen_classes(vocabulary, training_vocabulary)
        groups |= {"seen": seen, "unseen": ~seen}
    return groups


def published_classes(vocabulary: Vocabulary, training_vocabulary: Vocabulary | None) -> dict[str, list[str]]:
    """The names of the seen and of the unseen classes, so that a table of both can be compared with others'."""
    groups = class_groups(vocabulary, training_vocabulary)
    return {
        group: [category.name for category, member in zip(vocabulary, groups[group].tolist(), strict=True) if member]
        for group in ("seen", "unseen")
        if group in groups
    }
