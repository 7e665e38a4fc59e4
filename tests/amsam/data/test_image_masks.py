"""A folder of images and a folder of masks."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from amsam.data.image_masks import choose_shots, image_masks_spec, natural_order, read_labels
from sam_common.data.images import read_image
from sam_common.errors import UserError

SAMPLES = Path(os.environ.get("DETECTRON2_SAM_SAMPLES", "")) / "human_segmentation"


def put(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images 1, 2 and 10 of 6×4 pixels, whose masks have another extension."""
    for stem in ("1", "2", "10"):
        put(tmp_path / "images" / f"{stem}.jpg", np.zeros((4, 6, 3), np.uint8))
        mask = np.zeros((4, 6), np.uint8)
        mask[1:3, 2:5] = 255
        put(tmp_path / "masks" / f"{stem}.png", mask)
    return tmp_path


def records(folder: Path, **options: object) -> list[dict]:
    return image_masks_spec("mine", images=folder / "images", masks=folder / "masks", **options).load()


def test_pairs_are_found_by_name_and_sorted_as_people_count(folder: Path) -> None:
    """1, 2, 10; extensions are free; sizes are the images'."""
    found = records(folder)
    assert [record["image_id"] for record in found] == ["1", "2", "10"]
    assert (found[0]["height"], found[0]["width"], found[0]["num_classes"]) == (4, 6, 1)
    assert found[2]["mask_file_name"].endswith("10.png")


@pytest.mark.parametrize("value", [1, 255])
def test_of_one_class_both_habits_are_the_object(folder: Path, value: int) -> None:
    """0/1 and 0/255 masks have the same labels."""
    mask = np.zeros((4, 6), np.uint8)
    mask[0, 0] = value
    put(folder / "masks" / "1.png", mask)
    labels = read_labels(records(folder)[0])
    assert labels[0, 0] == 1 and labels.sum() == 1 and labels.dtype == torch.int64


def test_several_classes_and_what_nothing_is_said_about(folder: Path, tmp_path: Path) -> None:
    """Values 1 and 2 are the classes of the file, in its order; 255 is no class."""
    (tmp_path / "classes.txt").write_text("person, dog")
    for stem in ("1", "2", "10"):
        put(folder / "masks" / f"{stem}.png", np.tile(np.array([0, 1, 2, 255, 0, 0], np.uint8), (4, 1)))
    spec = image_masks_spec("mine", images=folder / "images", masks=folder / "masks", classes=tmp_path / "classes.txt")
    assert [category.name for category in spec.load_vocabulary()] == ["person", "dog"]
    assert read_labels(spec.load()[0])[0].tolist() == [0, 1, 2, -1, 0, 0]


def test_more_classes_than_a_mask_has_values(folder: Path, tmp_path: Path) -> None:
    """The 255th would be what nothing is said about."""
    (tmp_path / "classes.txt").write_text(", ".join(f"kind{i}" for i in range(255)))
    with pytest.raises(UserError, match=r"classes\.txt has 255 classes; masks have values of at most 254"):
        records(folder, classes=tmp_path / "classes.txt")


def test_a_mask_of_another_size_is_scaled_to_its_image(folder: Path) -> None:
    """Twice as large, nearest: the same labels. Another shape is refused."""
    large = np.zeros((8, 12), np.uint8)
    large[2:6, 4:10] = 255
    put(folder / "masks" / "1.png", large)
    first, second, _ = records(folder)
    assert torch.equal(read_labels(first), read_labels(second))
    put(folder / "masks" / "1.png", np.zeros((6, 6), np.uint8))
    with pytest.raises(UserError, match=r"1\.png is 6×6 but its image is 6×4"):
        read_labels(first)


def test_lonely_files_are_all_named(folder: Path) -> None:
    """Images without masks and masks without images, in one message, before anything else happens."""
    for lonely in ("images/1.jpg", "images/10.jpg", "masks/2.png"):
        (folder / lonely).unlink()
    with pytest.raises(UserError, match=r"1 have no masks: .*2\.jpg; 2 have no images: .*1\.png, .*10\.png"):
        records(folder)


def test_values_that_are_no_class_are_named(folder: Path) -> None:
    """As JPEG masks have them: the file, the values, and what is expected."""
    mask = np.zeros((4, 6), np.uint8)
    mask[0, :4] = 1, 7, 128, 255
    put(folder / "masks" / "2.png", mask)
    with pytest.raises(UserError, match=r"2\.png has pixels of the value 7, 128; .* 0 and 255, or 0 and 1"):
        read_labels(records(folder)[1])


def test_a_part_of_a_folder_is_named_in_a_file(folder: Path) -> None:
    """In the file's order, extensions or not; what it does not name may lack a mask; each name is an image's, once."""
    (folder / "masks" / "2.png").unlink()
    (folder / "images" / "notes.csv").write_text("skipped")
    names = folder / "part.txt"
    names.write_text("10.jpg\n\n1\n")
    assert [record["image_id"] for record in records(folder, names=names)] == ["10", "1"]
    for content, message in (
        ("1\n3", "names no image: 3;"),
        ("", "is empty"),
        (".", r"names no image: \.;"),
        ("1\n1.jpg", "has 1 more than once"),
        ("1\n2", r"1 have no masks: .*2\.jpg"),
    ):
        names.write_text(content)
        with pytest.raises(UserError, match=message):
            records(folder, names=names)
    with pytest.raises(UserError, match=r"names .*none\.txt cannot be read"):
        records(folder, names=folder / "none.txt")


def test_masks_may_have_a_suffix(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """a.jpg belongs to a_mask.png; a picture without the suffix is no mask, and counted. Images may have one too."""
    for stem in ("1", "2", "10"):
        (folder / "masks" / f"{stem}.png").rename(folder / "masks" / f"{stem}_mask.png")
    assert [record["image_id"] for record in records(folder, mask_suffix="_mask")] == ["1", "2", "10"]
    (folder / "masks" / "2_mask.png").rename(folder / "masks" / "2.png")
    with pytest.raises(UserError, match=r"1 have no masks: .*2\.jpg"):
        records(folder, mask_suffix="_mask")
    assert "_mask, skipped: 2.png" in caplog.text
    (folder / "images" / "2.jpg").rename(folder / "images" / "other.jpg")
    for stem in ("1", "10"):
        (folder / "images" / f"{stem}.jpg").rename(folder / "images" / f"{stem}_left.jpg")
    found = records(folder, mask_suffix="_mask", image_suffix="_left")
    assert [record["image_id"] for record in found] == ["1", "10"]


def test_a_grey_mask_may_be_saved_with_three_channels(folder: Path) -> None:
    """Equal channels are one; a coloured mask is refused by its name."""
    first, second, _ = records(folder)
    mask = np.array(Image.open(second["mask_file_name"]))
    put(folder / "masks" / "1.png", np.stack([mask] * 3, axis=-1))
    assert torch.equal(read_labels(first), read_labels(second))
    put(folder / "masks" / "1.png", np.stack([mask, mask, 0 * mask], axis=-1))
    with pytest.raises(UserError, match=r"1\.png is coloured"):
        read_labels(first)


@pytest.mark.parametrize("classes", [1, 2])
def test_masks_of_classes_in_a_lossy_format(folder: Path, classes: int) -> None:
    """Of several classes a JPEG is refused, whatever it is called: its values are other classes."""
    (folder / "classes.txt").write_text("head\nbody"[: 4 if classes == 1 else None])
    (folder / "masks" / "2.jpg").unlink(missing_ok=True)
    Image.new("L", (12, 8)).save(folder / "masks" / "2.png", "JPEG")
    if classes == 1:
        assert len(records(folder, classes=folder / "classes.txt")) == 3
    else:
        with pytest.raises(UserError, match=r"2\.png \(JPEG\)"):
            records(folder, classes=folder / "classes.txt")


def test_shots_are_the_first_or_drawn() -> None:
    """Without a seed in order; with one a repeatable draw of different images; never more than there are."""
    pool = [{"image_id": str(i)} for i in range(10)]
    assert choose_shots(pool, 4) == pool[:4]
    drawn = choose_shots(pool, 4, seed=1)
    assert drawn == choose_shots(pool, 4, seed=1) and len({record["image_id"] for record in drawn}) == 4
    assert drawn != choose_shots(pool, 4, seed=2)
    for wrong in (1, 11):
        with pytest.raises(UserError, match=f"{wrong} shots .* of 10 labelled images"):
            choose_shots(pool, wrong)


def test_natural_order() -> None:
    """Numbers by value wherever they stand; names that differ in zeros only still have one order."""
    names = ["b1", "a10", "a2", "a", "a02", "10", "9"]
    assert sorted(names, key=natural_order) == ["9", "10", "a", "a02", "a2", "a10", "b1"]


def test_of_one_class_a_mask_has_one_habit(folder: Path) -> None:
    """1 for the object and 255 for a border that nothing is said of, as VOC's: refused, not taken for the object."""
    put(folder / "masks" / "1.png", np.tile(np.array([0, 1, 1, 255, 0, 0], np.uint8), (4, 1)))
    with pytest.raises(UserError, match=r"1\.png has pixels of 1 and of 255"):
        read_labels(records(folder)[0])


@pytest.mark.parametrize("palette", [[255, 255, 255, 0, 0, 0], [0, 0, 0, 255, 255, 255]])
def test_a_black_and_white_palette_means_its_colours(folder: Path, palette: list[int]) -> None:
    """White is the object, whether its index is 0 or 1, as programs that make pictures small choose."""
    white = palette.index(255) // 3
    mask = Image.fromarray(np.full((4, 6), 1 - white, np.uint8), mode="P")
    mask.putpalette(palette)
    mask.putpixel((2, 1), white)
    mask.save(folder / "masks" / "1.png")
    labels = read_labels(records(folder)[0])
    assert labels[1, 2] == 1 and labels.sum() == 1


def test_a_mask_is_turned_as_its_image(folder: Path) -> None:
    """Both files say that they lie on their side: what they show is upright, in the image and in the mask."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((4, 6), np.uint8)
    pixels[0, 0] = 255
    Image.fromarray(np.stack([pixels] * 3, -1)).save(folder / "images" / "1.png", exif=exif)
    (folder / "images" / "1.jpg").unlink()
    Image.fromarray(pixels).save(folder / "masks" / "1.png", exif=exif)
    record = records(folder)[0]
    assert (record["height"], record["width"]) == (6, 4)
    assert torch.equal(read_labels(record), read_image(record["file_name"])[0].long() // 255)
    Image.fromarray(pixels).save(folder / "masks" / "1.png")
    with pytest.raises(UserError, match="is 6×4 but its image is 4×6, .*EXIF"):
        read_labels(record)


def test_names_with_spaces_at_their_ends(folder: Path) -> None:
    """Each is found by its line, which may have more spaces, a carriage return and a mark of its encoding."""
    for kind, suffix in (("images", ".jpg"), ("masks", ".png")):
        (folder / kind / f"1{suffix}").rename(folder / kind / f" 1 {suffix}")
    names = folder / "part.txt"
    names.write_bytes(b"\xef\xbb\xbf 1 \r\n  10  \r\n2.jpg \r\n")
    assert [record["image_id"] for record in records(folder, names=names)] == [" 1 ", "10", "2"]


@pytest.mark.parametrize("name", ["a\nb", "\udcff"])
def test_names_that_no_list_can_hold(folder: Path, name: str) -> None:
    """A line break, and bytes that are no letters: told in one printable line."""
    (folder / "images" / "1.jpg").rename(folder / "images" / f"{name}.jpg")
    with pytest.raises(UserError, match=r"mine: rename '.*\.jpg'") as error:
        records(folder)
    assert "\n" not in str(error.value) and str(error.value).encode()


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="DETECTRON2_SAM_SAMPLES names no folder with human_segmentation")
def test_the_real_pairs_are_read() -> None:
    """250 pairs, many masks of another size than their image; each has a person and a background."""
    found = records(SAMPLES)
    assert len(found) == 250 and found[9]["image_id"] == "10"
    for record in found[90:110]:
        labels = read_labels(record)
        assert labels.shape == (record["height"], record["width"]) and labels.unique().tolist() == [0, 1]


def save_as_jpeg(path: Path, value: int, quality: int) -> torch.Tensor:
    """A disc of that value on black, 40×40, as JPEG; returns its labels."""
    rows, columns = np.mgrid[:40, :40]
    disc = (rows - 20) ** 2 + (columns - 18) ** 2 < 120
    Image.fromarray((disc * value).astype(np.uint8)).save(path, "JPEG", quality=quality)
    return torch.from_numpy(disc).long()


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_black_and_white_masks_saved_as_jpeg(tmp_path: Path, quality: int) -> None:
    """The message offers a threshold; with it the object is what it was before, but for pixels of its border."""
    put(tmp_path / "images" / "1.png", np.zeros((40, 40, 3), np.uint8))
    (tmp_path / "masks").mkdir()
    disc = save_as_jpeg(tmp_path / "masks" / "1.jpg", 255, quality)
    with pytest.raises(UserError, match=r"1\.jpg has pixels of .*--mask-threshold 128.*MASK_THRESHOLD: '128'"):
        read_labels(records(tmp_path)[0])
    (record,) = records(tmp_path, mask_threshold="128")
    labels = read_labels(record)
    assert labels.dtype == torch.int64 and (labels != disc).sum() <= 2


def test_masks_of_ones_saved_as_jpeg_are_lost(tmp_path: Path) -> None:
    """Error: what is left of them are zeros and ones too, in other places; the file's name does not matter."""
    put(tmp_path / "images" / "1.png", np.zeros((40, 40, 3), np.uint8))
    (tmp_path / "masks").mkdir()
    square = np.zeros((40, 40), np.uint8)
    square[10:30, 10:30] = 1
    Image.fromarray(square).save(tmp_path / "masks" / "1.png", "JPEG")
    left = np.array(Image.open(tmp_path / "masks" / "1.png"))
    assert left.max() == 1 and (left.sum(), square.sum()) == (576, 400)
    with pytest.raises(UserError, match=r"1\.png has values of 0 … 1 in a lossy format \(JPEG\).* as PNG"):
        read_labels(records(tmp_path)[0])


@pytest.mark.parametrize("threshold", ["0", "256", "half", 0, -1])
def test_thresholds_that_make_no_sense(folder: Path, threshold: str | int) -> None:
    """Error: a threshold lies between 1 and 255."""
    with pytest.raises(UserError, match="mask threshold is .*between 1 and 255"):
        records(folder, mask_threshold=threshold)


def test_a_threshold_is_for_one_class(folder: Path) -> None:
    """Error: the values of several classes are no lightness."""
    (folder / "classes.txt").write_text("person, dog")
    with pytest.raises(UserError, match="one class"):
        records(folder, mask_threshold=128, classes=folder / "classes.txt")
