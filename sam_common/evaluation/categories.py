"""Relations between vocabularies."""

from __future__ import annotations

import torch
from torch import Tensor

from sam_common.structures import Category, Vocabulary


def words_of(category: Category) -> set[str]:
    """The synonyms of a class, compared without case and surrounding blanks."""
    return {word.strip().lower() for word in category.synonyms}


def seen_classes(vocabulary: Vocabulary, training_vocabulary: Vocabulary) -> Tensor:
    """[C] bool: a class is seen iff its synonym set meets the synonyms of the training classes (spec section 6)."""
    training_words = set().union(*(words_of(category) for category in training_vocabulary))
    return torch.tensor([bool(words_of(category) & training_words) for category in vocabulary], dtype=torch.bool)
