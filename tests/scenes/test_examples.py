from __future__ import annotations

import numpy as np

from mfpo.scenes.examples import checklist
from mfpo.scenes.world import World, sample_scene

SCENE = sample_scene("sft", 3)


def test_a_checklist_holds_what_is_there_and_something_that_is_not() -> None:
    rng = np.random.default_rng(0)
    _, answer = checklist(SCENE, World(), rng)
    listed = {kind.strip(): words for (kind, _), (words, _) in zip(answer[0::2], answer[1::2], strict=True)}
    for kind, words in listed.items():
        item = SCENE.find(kind)
        expected = {"no"} if item is None else {item.colour, item.position}
        assert set(words.strip(" ,").split()) == expected
    assert {kind in SCENE.kinds for kind in listed} == {True, False}
    assert [learned for _, learned in answer] == [False, True] * len(listed)
