"""The domain that the tiny SAM never met."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from amsam.data.image_masks import image_masks_spec, read_labels
from amsam.data.worms import generate_worm, write_worms


def test_a_picture_is_a_function_of_its_number() -> None:
    """The same seed and index give the same bytes; another of either another picture."""
    first, mask = generate_worm(0, 3, size=96)
    again, same_mask = generate_worm(0, 3, size=96)
    assert np.array_equal(first, again) and np.array_equal(mask, same_mask)
    assert not np.array_equal(first, generate_worm(0, 4, size=96)[0])
    assert not np.array_equal(first, generate_worm(1, 3, size=96)[0])


def test_worms_are_bright_thin_and_whole() -> None:
    """The object is brighter than the slide, keeps off the border, and fills less than half of its box."""
    for index in range(12):
        picture, mask = generate_worm(0, index, size=128)
        rows, columns = np.nonzero(mask)
        box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert 0.02 < len(rows) / box < 0.5
        assert min(rows.min(), columns.min()) > 0 and max(rows.max(), columns.max()) < 127
        assert picture[mask].mean() > picture[~mask].mean() + 40


def test_written_it_is_a_folder_of_images_and_masks(tmp_path: Path) -> None:
    """The reader of any such folder finds the pairs, and in each one object."""
    write_worms(tmp_path, seed=0, first_index=5, count=2, size=64)
    records = image_masks_spec("worms", images=tmp_path / "images", masks=tmp_path / "masks").load()
    assert [record["image_id"] for record in records] == ["000005", "000006"]
    expected = generate_worm(0, 6, size=64)[1]
    assert np.array_equal(read_labels(records[1]).numpy() == 1, expected)
