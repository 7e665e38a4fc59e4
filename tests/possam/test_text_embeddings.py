"""The grammar of vocabularies and the text embeddings made from them."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from possam import text_embeddings as vocabulary_module
from possam.clip_encoder import ClipEncoder, build_clip
from possam.text_embeddings import VILD_TEMPLATES, ClassEmbeddings, TextEmbeddings
from sam_common.data.vocabulary_file import parse_vocabulary
from sam_common.errors import UserError
from sam_common.structures import Category

TEMPLATES = ("a photo of a {}.", "There is a small {} in the scene.")


@pytest.fixture(scope="module")
def clip() -> ClipEncoder:
    torch.manual_seed(0)
    return build_clip("tiny", "random")


class CountingClip(ClipEncoder):
    """Counts the sentences it is asked to encode."""

    def __init__(self, clip: ClipEncoder) -> None:
        super().__init__(clip.clip, clip.tokenizer, name=clip.name)
        self.encoded = 0

    def encode_text(self, sentences):
        self.encoded += len(sentences)
        return super().encode_text(sentences)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dog", [("dog",)]),
        (" big  dog | puppy ,cat ", [("big dog", "puppy"), ("cat",)]),
        ("dog, cat;", [("dog",), ("cat",)]),
        ("dog\ncat", [("dog",), ("cat",)]),
    ],
)
def test_synonyms_classes_and_groups(text: str, expected: list[tuple[str, ...]]) -> None:
    """Hand-made cases: blanks around words don't count, a trailing `;` is fine, a newline separates groups too."""
    vocabulary = parse_vocabulary(text)
    assert [category.synonyms for category in vocabulary] == expected
    assert [category.name for category in vocabulary] == [synonyms[0] for synonyms in expected]
    assert [category.id for category in vocabulary] == list(range(len(expected)))
    assert all(category.is_thing for category in vocabulary)


def test_a_suffix_binds_its_whole_group() -> None:
    """The documented example, and a group that says `:thing` itself."""
    vocabulary = parse_vocabulary("dog|puppy, cat; sky, grass:stuff; car : Thing")
    assert [(c.name, c.is_thing) for c in vocabulary] == [
        ("dog", True),
        ("cat", True),
        ("sky", False),
        ("grass", False),
        ("car", True),
    ]


def test_a_file_has_the_same_grammar(tmp_path: Path) -> None:
    """A file with comments and blank lines gives what the one-line text gives, as a path and as a string."""
    path = tmp_path / "words.txt"
    path.write_text("# animals\ndog|puppy, cat\n\nsky, grass:stuff  # behind\n", encoding="utf-8")
    expected = parse_vocabulary("dog|puppy, cat; sky, grass:stuff")
    assert parse_vocabulary(path) == expected
    assert parse_vocabulary(str(path)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no words"),
        (" ; ", "no words"),
        ("dog; ; cat", "empty word"),
        ("dog,,cat", "empty word in 'dog,,cat'"),
        ("dog|", "empty word"),
        (":stuff", "empty word"),
        ("dog, cat|Dog", "'Dog' is given twice"),
        ("dog|dog", "'dog' is given twice"),
        ("sky:stuf", "':stuf' is unknown"),
        ("sky:stuff, dog", "':stuff, dog' is unknown"),
        ("sky:stuff, grass:stuff", "'sky:stuff, grass:stuff' has two suffixes"),
        ("missing.txt", "vocabulary file missing.txt cannot be read"),
    ],
)
def test_mistakes_are_one_line_that_quotes_them(text: str, message: str) -> None:
    """Every kind of mistake in the grammar is a UserError of one line that says what was wrong."""
    with pytest.raises(UserError) as caught:
        parse_vocabulary(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistake_in_a_file_names_file_and_line(tmp_path: Path) -> None:
    """The duplicate stands in line 3, comments and blank lines counted."""
    path = tmp_path / "words.txt"
    path.write_text("dog # first\n\ncat, dog\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"words\.txt, line 3: the word 'dog' is given twice"):
        parse_vocabulary(path)


def test_binary_files_and_folders_are_refused(tmp_path: Path) -> None:
    """A picture or a folder given as the vocabulary is told apart from words."""
    binary = tmp_path / "words.png"
    binary.write_bytes(b"\x89PNG\xff\xfe")
    for path in (binary, tmp_path):
        with pytest.raises(UserError, match=r"vocabulary file"):
            parse_vocabulary(path)


def test_the_templates_are_vilds_fourteen() -> None:
    """14 different sentences, each with one place for the word; sizes come in three sentences each."""
    assert len(set(VILD_TEMPLATES)) == 14
    assert all(template.count("{}") == 1 for template in VILD_TEMPLATES)
    assert all(sum(f"a {size} " in t for t in VILD_TEMPLATES) == 3 for size in ("small", "medium", "large"))


def test_an_embedding_is_the_normalised_mean_over_templates(clip: ClipEncoder, monkeypatch) -> None:
    """Equals normalise(mean(normalised sentences)) computed here, with sentences encoded in chunks that split words."""
    monkeypatch.setattr(vocabulary_module, "_SENTENCES_AT_ONCE", 3)
    text = TextEmbeddings(clip, templates=TEMPLATES)(parse_vocabulary("dog|puppy, cat; sky:stuff"))
    assert text.class_index.tolist() == [0, 0, 1, 2]
    assert text.num_classes == 3
    for row, word in zip(text.embeddings, ["dog", "puppy", "cat", "sky"], strict=True):
        sentences = clip.encode_text([template.format(word) for template in TEMPLATES])
        torch.testing.assert_close(row, F.normalize(sentences.mean(0), dim=0), atol=1e-5, rtol=0)


def test_a_known_vocabulary_costs_nothing(clip: ClipEncoder, tmp_path: Path) -> None:
    """The second call is answered from memory, a second object from disk, both with equal numbers."""
    counting = CountingClip(clip)
    words = parse_vocabulary("dog|puppy, cat")
    text = TextEmbeddings(counting, templates=TEMPLATES, cache_dir=tmp_path)
    first = text(words)
    assert counting.encoded == 6
    assert text(words) is first
    again = TextEmbeddings(counting, templates=TEMPLATES, cache_dir=tmp_path)(words)
    assert counting.encoded == 6
    assert torch.equal(again.embeddings, first.embeddings)


def test_the_cache_is_keyed_by_words_templates_and_weights(clip: ClipEncoder, tmp_path: Path) -> None:
    """Other words, other templates or other text weights are encoded anew; who is a thing doesn't matter."""
    counting = CountingClip(clip)
    TextEmbeddings(counting, templates=TEMPLATES, cache_dir=tmp_path)(parse_vocabulary("sky"))
    TextEmbeddings(counting, templates=TEMPLATES, cache_dir=tmp_path)(parse_vocabulary("sky:stuff"))
    assert counting.encoded == 2
    TextEmbeddings(counting, templates=TEMPLATES[::-1], cache_dir=tmp_path)(parse_vocabulary("sky"))
    TextEmbeddings(counting, templates=TEMPLATES, cache_dir=tmp_path)(parse_vocabulary("sea"))
    assert counting.encoded == 6
    torch.manual_seed(1)
    other = CountingClip(build_clip("tiny", "random"))
    TextEmbeddings(other, templates=TEMPLATES, cache_dir=tmp_path)(parse_vocabulary("sky"))
    assert other.encoded == 2


def test_synonyms_are_not_confused_with_classes_in_memory(clip: ClipEncoder) -> None:
    """The same words in other classes give another class index."""
    text = TextEmbeddings(clip, templates=TEMPLATES)
    assert text(parse_vocabulary("dog|cat")).class_index.tolist() == [0, 0]
    assert text(parse_vocabulary("dog, cat")).class_index.tolist() == [0, 1]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_cache_file_is_rebuilt(clip: ClipEncoder, tmp_path: Path, damage: str, caplog) -> None:
    """A cut file, one changed byte and an empty file: the right numbers come back and the file is whole again."""
    words = parse_vocabulary("dog, cat")
    good = TextEmbeddings(clip, templates=TEMPLATES, cache_dir=tmp_path)(words).embeddings
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    broken = {"truncated": whole[:-7], "flipped": whole[:-1] + bytes([whole[-1] ^ 1]), "empty": b""}[damage]
    path.write_bytes(broken)
    assert torch.equal(TextEmbeddings(clip, templates=TEMPLATES, cache_dir=tmp_path)(words).embeddings, good)
    assert path.read_bytes() == whole
    assert f"{path} is damaged" in caplog.text and "computed anew" in caplog.text


def test_a_cache_that_cannot_be_written_is_no_error(clip: ClipEncoder, tmp_path: Path, caplog) -> None:
    """The folder's place is taken by a file: the embeddings come all the same, with a warning."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    text = TextEmbeddings(clip, templates=TEMPLATES, cache_dir=blocked)(parse_vocabulary("dog"))
    assert text.embeddings.shape == (1, clip.embed_dim)
    assert "not cached" in caplog.text


def test_mixed_precision_around_it_changes_nothing(clip: ClipEncoder) -> None:
    """Under bf16 autocast the embeddings are those of full precision: a cache filled in training serves evaluation."""
    words = parse_vocabulary("dog, cat")
    full = TextEmbeddings(clip, templates=TEMPLATES)(words).embeddings
    with torch.autocast("cpu", torch.bfloat16):
        mixed = TextEmbeddings(clip, templates=TEMPLATES)(words).embeddings
    assert torch.equal(full, mixed)


def test_class_embeddings_stay_themselves_on_their_device() -> None:
    """`to` the same device is the object itself; to another device both tensors move."""
    text = ClassEmbeddings(torch.eye(3), torch.tensor([0, 1, 1]))
    assert text.to("cpu") is text
    moved = text.to("meta")
    assert moved.embeddings.is_meta and moved.class_index.is_meta


def test_words_may_hold_braces(clip: ClipEncoder) -> None:
    """Edge case: a word with `{}` is a word, not a second place for one."""
    text = TextEmbeddings(clip, templates=TEMPLATES)((Category("{}", ("{}",)),))
    assert text.embeddings.isfinite().all()


def test_chunks_give_what_one_pass_gives(clip: ClipEncoder, monkeypatch) -> None:
    """Equality: 7 words encoded two by two, with a rest of one, are those of a single pass; no call is larger."""
    counting = CountingClip(clip)
    words = parse_vocabulary("dog, cat, car|automobile, sky, grass, tree")
    whole = TextEmbeddings(clip, templates=TEMPLATES)(words).embeddings
    monkeypatch.setattr(vocabulary_module, "_SENTENCES_AT_ONCE", 5)
    sizes: list[int] = []
    encode = CountingClip.encode_text
    monkeypatch.setattr(CountingClip, "encode_text", lambda self, s: sizes.append(len(s)) or encode(self, s))
    parts = TextEmbeddings(counting, templates=TEMPLATES)(words).embeddings
    assert sizes == [4, 4, 4, 2]
    assert torch.allclose(parts, whole, atol=1e-6)


def test_a_stopped_run_leaves_what_it_has_done(clip: ClipEncoder, tmp_path: Path, monkeypatch) -> None:
    """Five words in files of two: interrupted within the third file, the next run encodes its one word only, and gives
    the embeddings that one file for all gives."""
    words = parse_vocabulary("dog, cat, car, sky, grass")
    whole = TextEmbeddings(clip, templates=TEMPLATES, cache_dir=None)(words).embeddings
    monkeypatch.setattr(vocabulary_module, "_WORDS_IN_A_FILE", 2)
    counting = CountingClip(clip)
    encode = CountingClip.encode_text

    def interrupted(self: CountingClip, sentences: list[str]) -> torch.Tensor:
        if counting.encoded == 4 * len(TEMPLATES):
            raise KeyboardInterrupt
        return encode(self, sentences)

    monkeypatch.setattr(CountingClip, "encode_text", interrupted)
    with pytest.raises(KeyboardInterrupt):
        TextEmbeddings(counting, templates=TEMPLATES, cache_dir=tmp_path)(words)
    monkeypatch.setattr(CountingClip, "encode_text", encode)
    counting.encoded = 0
    found = TextEmbeddings(counting, templates=TEMPLATES, cache_dir=tmp_path)(words).embeddings
    assert counting.encoded == len(TEMPLATES) and len(list(tmp_path.iterdir())) == 3
    assert torch.allclose(found, whole, atol=1e-6)


WORDS = [f"word{index}" for index in range(8)]


def test_memory_is_bounded(clip: ClipEncoder) -> None:
    """Three words more than fit: the first one is encoded again, to the same numbers; the last one is not."""
    counting = CountingClip(clip)
    size = 4 * clip.embed_dim + 8  # an embedding in float32 and the index of its class
    text = TextEmbeddings(counting, templates=TEMPLATES, memory=5 * size)
    first, *_, last = [text(parse_vocabulary(word)) for word in WORDS]
    assert counting.encoded == 8 * len(TEMPLATES)
    assert text(parse_vocabulary(WORDS[-1])) is last and counting.encoded == 8 * len(TEMPLATES)
    assert torch.equal(text(parse_vocabulary(WORDS[0])).embeddings, first.embeddings)
    assert counting.encoded == 9 * len(TEMPLATES)


def test_the_folder_is_bounded(clip: ClipEncoder, tmp_path: Path) -> None:
    """Three files more than fit, of which one is used again: those used longest ago go, their words are encoded again
    to the same numbers. Files of another name stay, and so does one that alone is too large."""
    mine, clock = tmp_path / "mine.safetensors", itertools.count(1)
    mine.write_bytes(bytes(10**6))
    os.utime(mine, (0, 0))

    def encode(word: str, disk: int) -> tuple[torch.Tensor, int]:
        """Its embeddings, and how many words a process encodes for them, with what it has used dated by hand."""
        counting = CountingClip(clip)
        text = TextEmbeddings(counting, templates=TEMPLATES, cache_dir=tmp_path, disk=disk)
        embeddings = text(parse_vocabulary(word)).embeddings
        used = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(used, 2 * (next(clock),))
        return embeddings, counting.encoded // len(TEMPLATES)

    first, _ = encode(WORDS[0], 10**6)
    (file,) = set(tmp_path.iterdir()) - {mine}
    disk = 5 * file.stat().st_size
    for word in WORDS[1:5]:
        encode(word, disk)
    assert encode(WORDS[0], disk)[1] == 0  # it is used again
    for word in WORDS[5:]:
        encode(word, disk)
    assert len(list(tmp_path.iterdir())) == 5 + 1
    assert [encode(word, 10**6)[1] for word in (WORDS[0], WORDS[4], WORDS[7], WORDS[1])] == [0, 0, 0, 1]
    file.unlink()
    again, encoded = encode(WORDS[0], 1)
    assert torch.equal(again, first) and encoded == 1
    assert set(tmp_path.iterdir()) == {mine, file}


def test_a_file_that_another_process_removes(clip: ClipEncoder, tmp_path: Path, monkeypatch, caplog) -> None:
    """Gone between the listing and its removal, and between two runs: no error, no warning, the same numbers."""
    words = parse_vocabulary("dog")
    first = TextEmbeddings(clip, templates=TEMPLATES, cache_dir=tmp_path)(words).embeddings
    (file,) = tmp_path.iterdir()
    os.utime(file, (0, 0))
    unlink = os.unlink

    def twice(path: str) -> None:
        unlink(path)
        unlink(path)

    monkeypatch.setattr(vocabulary_module.os, "unlink", twice)
    TextEmbeddings(clip, templates=TEMPLATES, cache_dir=tmp_path, disk=1)(parse_vocabulary("cat"))
    assert len(list(tmp_path.iterdir())) == 1 and not file.exists()
    again = TextEmbeddings(clip, templates=TEMPLATES, cache_dir=tmp_path)(words).embeddings
    assert torch.equal(again, first) and not caplog.text
