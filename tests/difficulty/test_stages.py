from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfpo.difficulty.stages import levels, plan_stages, split_by_difficulty

ENTROPIES = [0.9, 0.1, 0.5, 0.2, 0.8, 0.4]


def test_thirds_are_sorted_by_entropy():
    easy, medium, hard = split_by_difficulty(ENTROPIES)
    assert (easy.name, easy.rows) == ("easy", (1, 3))
    assert (medium.name, medium.rows) == ("medium", (2, 5))
    assert (hard.name, hard.rows) == ("hard", (0, 4))
    assert levels(ENTROPIES) == ["hard", "easy", "medium", "easy", "hard", "medium"]


@given(st.lists(st.floats(0, 10), max_size=40))
def test_thirds_hold_every_row_once_and_differ_by_one_at_most(entropies):
    stages = split_by_difficulty(entropies)
    assert sorted(row for stage in stages for row in stage.rows) == list(range(len(entropies)))
    sizes = [len(stage.rows) for stage in stages]
    assert not sizes or max(sizes) - min(sizes) <= 1
    for easier, harder in pairwise(stages):
        assert max(entropies[row] for row in easier.rows) <= min(entropies[row] for row in harder.rows)


def test_orders():
    assert [s.name for s in plan_stages("none", 6)] == ["all"]
    assert [s.name for s in plan_stages("easy_to_hard", 6, ENTROPIES)] == ["easy", "medium", "hard"]
    assert [s.name for s in plan_stages("hard_to_easy", 6, ENTROPIES)] == ["hard", "medium", "easy"]


def test_random_stages_depend_on_the_seed_alone():
    stages = plan_stages("random", 30, seed=1)
    assert [len(stage.rows) for stage in stages] == [10, 10, 10]
    assert sorted(row for stage in stages for row in stage.rows) == list(range(30))
    assert stages == plan_stages("random", 30, seed=1) != plan_stages("random", 30, seed=2)


def test_difficulty_needs_entropies():
    with pytest.raises(ValueError, match="entropy"):
        plan_stages("easy_to_hard", 6)
