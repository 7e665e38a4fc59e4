"""What users give by mistake in place of a picture, of words, of boxes, and what they are told."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

GREY = np.zeros((30, 40), np.uint8)
NAN = float("nan")

IMAGES: dict[str, tuple[Any, str]] = {
    "nothing": (None, "an image is a path, a PIL image, an array or a tensor, this is NoneType"),
    "a number": (5, "this is int"),
    "bytes": (b"street.jpg", "this is bytes"),
    "a list": ([[0, 0, 0]], "this is list"),
    "no such file": ("nowhere.jpg", r"nowhere\.jpg: there is no such image file"),
    "a grey array": (GREY, r"an image array is uint8 RGB \[H, W, 3\], this one is uint8 \[30, 40\]"),
    "an RGBA array": (np.zeros((30, 40, 4), np.uint8), r"uint8 \[30, 40, 4\]"),
    "an array of floats": (np.zeros((30, 40, 3)), r"float64 \[30, 40, 3\]"),
    "an array without pixels": (np.zeros((0, 40, 3), np.uint8), r"uint8 \[0, 40, 3\]"),
    "an array of texts": (np.array([[["a"] * 3]]), r"<U1 \[1, 1, 3\]"),
    "a tensor that is an array": (
        torch.zeros(30, 40, 3, dtype=torch.uint8),
        r"an image tensor is uint8 RGB \[3, H, W\]",
    ),
    "a tensor of floats": (torch.zeros(3, 30, 40), r"torch\.float32 \[3, 30, 40\]"),
    "a batch": (torch.zeros(1, 3, 30, 40, dtype=torch.uint8), r"\[1, 3, 30, 40\]"),
    "32 bits": (Image.new("F", (40, 30)), r"the image has pixels of 32 bits \(mode F\)"),
}

VOCABULARIES: dict[str, tuple[Any, str]] = {
    "a number": (5, "a vocabulary is a text, a list of texts or a Vocabulary; int is no text"),
    "a dictionary": ({"dog": 1}, "dict is no text"),
    "a list with a hole": (["dog", None], "NoneType is no text"),
    "bytes": (b"dog", "bytes is no text"),
    "no text": ("", "'' holds no words"),
    "an empty list": ([], r"'\[\]' holds no words"),
    "an empty vocabulary": ((), r"'\(\)' holds no words"),
    "a list of nothing": ([""], "holds no words"),
    "a word twice": (["dog", "dog"], "vocabulary 'dog': the word 'dog' is given twice"),
    "half a class": (["dog|", "cat"], r"vocabulary 'dog\|': there is an empty word"),
}

BOXES: dict[str, tuple[Any, str]] = {
    "a number": (5, r"boxes are \[N, 4\], rows of x0, y0, x1, y1; these are \[\]"),
    "a text": ("1,2,3,4", "boxes are rows of four numbers"),
    "a dictionary": ({"box": [1, 2, 3, 4]}, "boxes are rows of four numbers"),
    "one box": ([1, 2, 3, 4], r"these are \[4\]"),
    "two points": ([[10, 20], [30, 25]], r"these are \[2, 2\]"),
    "rows of two lengths": ([[1, 2, 3, 4], [1, 2]], "boxes are rows of four numbers"),
    "a batch": (torch.zeros(1, 2, 4), r"these are \[1, 2, 4\]"),
    "texts": ([["a", 1, 2, 3]], "boxes are rows of four numbers"),
    "holes": ([[None, 1, 2, 3]], "boxes are rows of four numbers"),
    "a number beyond all": ([[10**400, 0, 1, 1]], "boxes are rows of four numbers"),
    "no numbers": ([[1, 1, 2, 2], [NAN, 0, 1, 1]], "box 1, nan,0,1,1, has a coordinate that is no number"),
    "no area": (np.array([[5, 5, 5, 9]]), "box 0, 5,5,5,9, has no area"),
    "corners changed over": ([[9, 5, 5, 9]], "has x1 < x0 or y1 < y0"),
    "outside": (torch.tensor([[40, 0, 50, 10]]), "lies outside the image of 40 × 30 pixels"),
}
