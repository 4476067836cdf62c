from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from mfpo.errors import UserError
from mfpo.scenes import sprites
from mfpo.scenes.backgrounds import GROUND
from mfpo.scenes.world import (
    COLOURS,
    CONTEXTS,
    KINDS,
    World,
    sample_scene,
    sample_scenes,
    swap_candidate,
)


def test_everything_in_the_world_can_be_drawn() -> None:
    assert set(sprites.KINDS) == set(KINDS)
    assert set(sprites.COLOURS) == set(COLOURS)
    assert set(GROUND) == set(CONTEXTS)
    assert all(set(table) <= set(KINDS) for table in CONTEXTS.values())


def test_a_scene_depends_on_split_seed_and_index_only() -> None:
    assert sample_scene("train", 7, seed=3) == sample_scenes("train", 20, seed=3)[7]
    different = {
        sample_scene(*key) for key in (("train", 7, 3), ("train", 7, 4), ("train", 8, 3), ("test", 7, 3))
    }
    assert len(different) == 4


def test_splits_share_no_scene() -> None:
    layouts = [
        {(scene.context, scene.objects) for scene in sample_scenes(split, 300)} for split in ("sft", "test")
    ]
    assert not layouts[0] & layouts[1]


def test_unknown_split_names_the_nearest() -> None:
    with pytest.raises(UserError, match="validation"):
        sample_scene("validaton", 0)


@pytest.mark.parametrize(
    ("bounds", "says"),
    [((13, 24), "none has so many objects"), ((12, 12), "12 objects found no room in a kitchen, 3 times")],
)
def test_a_scene_that_cannot_be_drawn_ends_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, bounds: tuple[int, int], says: str
) -> None:
    monkeypatch.setattr("mfpo.scenes.world._DRAWS", 200)
    monkeypatch.setattr("mfpo.scenes.world._PLACEMENTS", 3)
    table = dict.fromkeys(list(KINDS)[:12], 0.99)
    with pytest.raises(UserError, match=says):
        sample_scene("train", 0, world=World({"kitchen": table}, *bounds))


def test_scenes_are_drawn_with_the_same_bits_as_ever() -> None:
    """Scenes of stored results are drawn again by their numbers."""
    crowded = World(min_objects=5, max_objects=7)
    text = repr([*sample_scenes("train", 40, seed=3), *sample_scenes("test", 10, world=crowded)])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "dee3a5cc01844eda"


def test_kinds_occur_as_often_as_their_context_says() -> None:
    scenes = sample_scenes("sft", 4000)
    counts: Counter[tuple[str, str]] = Counter()
    totals = Counter(scene.context for scene in scenes)
    for scene in scenes:
        counts.update((scene.context, kind) for kind in scene.kinds)
    for context, table in CONTEXTS.items():
        seen = {kind: counts[context, kind] / totals[context] for kind in KINDS}
        assert all(seen[kind] == 0 for kind in KINDS if kind not in table)
        # Scenes with too few or too many objects are drawn again, which shifts the rates a little.
        assert max(abs(seen[kind] - table[kind]) for kind in table) < 0.1
        assert sorted(table, key=table.__getitem__)[-1] == max(seen, key=seen.__getitem__)


def test_objects_stay_inside_and_apart() -> None:
    world = World()
    for scene in sample_scenes("validation", 200):
        assert world.min_objects <= len(scene.objects) <= world.max_objects
        assert len(scene.kinds) == len(scene.objects)
        for item in scene.objects:
            assert item.x - item.size / 2 >= 0 and item.x + item.size / 2 <= 1
            assert item.y - item.size >= 0 and item.y <= 1
            third = {"left": (0, 0.4), "middle": (0.4, 0.6), "right": (0.6, 1)}[item.position]
            assert third[0] <= item.x <= third[1]


def test_swaps_and_removals_change_one_object() -> None:
    rng = np.random.default_rng(0)
    for scene in sample_scenes("validation", 100):
        kind, other = swap_candidate(scene, rng)
        assert kind in scene.kinds and other not in scene.kinds
        swapped = scene.swapped(kind, other)
        assert swapped.kinds == scene.kinds - {kind} | {other}
        before, after = scene.find(kind), swapped.find(other)
        assert before is not None and after is not None
        assert (before.x, before.y, before.size, before.colour) == (
            after.x,
            after.y,
            after.size,
            after.colour,
        )
        assert scene.without(kind).kinds == scene.kinds - {kind}
