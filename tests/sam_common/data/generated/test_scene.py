"""The generated world: what is drawn depends on seed and index alone, and its masks agree with each other."""

from __future__ import annotations

import numpy as np
import pytest

from sam_common.data.generated.scene import Scene, Thing, generate_scene
from sam_common.data.generated.vocabulary import seen_vocabulary, world_vocabulary
from sam_common.evaluation.class_groups import seen_classes


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [generate_scene(7, index, size=128) for index in range(60)]


def occlusion(thing: Thing) -> float:
    """The hidden share of its area."""
    return 1 - thing.visible.sum() / thing.whole.sum()


def test_same_seed_and_index_give_the_same_bytes_and_others_do_not():
    """A scene is a function of its arguments; nothing drawn before it matters."""
    first = generate_scene(3, 5, size=96)
    generate_scene(4, 0, size=96)
    again = generate_scene(3, 5, size=96)
    assert first.image.tobytes() == again.image.tobytes()
    assert [t.whole.tobytes() for t in first.things] == [t.whole.tobytes() for t in again.things]
    assert first.image.tobytes() != generate_scene(3, 6, size=96).image.tobytes()
    assert first.image.tobytes() != generate_scene(4, 5, size=96).image.tobytes()


def test_a_scene_is_the_same_at_every_size():
    """All lengths are relative: the same things at the same places, whatever the number of pixels."""
    small, large = generate_scene(1, 2, size=128), generate_scene(1, 2, size=384)
    assert [thing.category for thing in small.things] == [thing.category for thing in large.things]
    for few, many in zip(small.things, large.things, strict=True):
        assert few.whole.mean() == pytest.approx(many.whole.mean(), rel=0.1)


def test_visible_masks_are_what_the_stack_leaves_of_the_whole_ones(scenes: list[Scene]):
    """Visible = amodal minus everything above; so visible ⊆ amodal, visible masks are disjoint, the top is whole."""
    for scene in scenes:
        above = np.zeros_like(scene.things[-1].whole)
        for thing in reversed(scene.things):
            assert np.array_equal(thing.visible, thing.whole & ~above)
            above |= thing.whole
        assert occlusion(scene.things[-1]) == 0


def test_segments_cover_every_pixel_once(scenes: list[Scene]):
    """Things and stuff regions tile the picture, and no segment is empty."""
    for scene in scenes:
        masks = np.stack([mask for _, mask in scene.segments()])
        assert np.array_equal(masks.sum(0), np.ones_like(scene.stuff))
        assert masks.any((1, 2)).all()


def test_about_half_of_the_things_are_occluded_and_lose_a_third(scenes: list[Scene]):
    """The statistics the amodal task needs; nothing hides more than 60% of a thing; 2 to 6 things per scene."""
    hidden_shares = np.array([occlusion(thing) for scene in scenes for thing in scene.things])
    hidden = hidden_shares[hidden_shares > 0.01]
    assert 0.4 < len(hidden) / len(hidden_shares) < 0.65
    assert 0.25 < hidden.mean() < 0.4
    assert hidden_shares.max() <= 0.6
    assert all(2 <= len(scene.things) <= 6 for scene in scenes)


def test_the_vocabulary_is_48_compositions_and_8_kinds_of_stuff():
    """Things first, ids 1..56, no word means two classes."""
    world = world_vocabulary()
    assert [category.is_thing for category in world] == [True] * 48 + [False] * 8
    assert [category.id for category in world] == list(range(1, 57))
    words = [word for category in world for word in category.synonyms]
    assert len(set(words)) == len(words)
    assert all(category.synonyms[0] == category.name for category in world)


def test_unseen_things_are_compositions_of_seen_words():
    """16 things and 2 kinds of stuff are unseen; each texture and each shape occurs in a seen class."""
    world, seen = world_vocabulary(), seen_vocabulary()
    unseen = [category for category in world if category not in seen]
    assert (sum(c.is_thing for c in unseen), sum(not c.is_thing for c in unseen)) == (16, 2)
    for part in (slice(0, 2), slice(2, 3)):  # texture, shape
        in_seen, in_world = ({tuple(c.name.split()[part]) for c in group if c.is_thing} for group in (seen, world))
        assert in_seen == in_world
    assert seen_classes(world, seen).tolist() == [category in seen for category in world]


def test_scenes_of_seen_categories_show_nothing_else():
    """Indices point into the vocabulary that was given, and a class outside it never appears."""
    seen = seen_vocabulary()
    shown = set()
    for index in range(40):
        scene = generate_scene(2, index, size=64, categories=seen)
        assert scene.vocabulary is seen
        for category, _ in scene.segments():
            shown.add(category)
    assert shown <= set(range(38))
    assert len(shown) > 30
