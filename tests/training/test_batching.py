from __future__ import annotations

import collections

import pytest

from mfpo.difficulty.stages import Stage
from mfpo.errors import UserError
from mfpo.preferences.encoding import EncodedRows, RowEncoder
from mfpo.records import ImageSource
from mfpo.training.batching import PreferenceCollator, Turn, TurnDataset, plan_turns
from preference_rows import make_pair, make_pairs

STAGES = [Stage("easy", (0, 1, 2, 3)), Stage("medium", (4, 5)), Stage("hard", (6, 7, 8))]


def test_stages_follow_each_other_and_each_pass_is_a_new_order():
    turns = plan_turns(STAGES, num_passes=2, seed=0)
    assert [turn.stage for turn in turns] == [1] * 8 + [2] * 4 + [3] * 6
    first, second = ([turn.row for turn in turns[start : start + 4]] for start in (0, 4))
    assert sorted(first) == sorted(second) == [0, 1, 2, 3]
    assert first != second
    assert turns == plan_turns(STAGES, num_passes=2, seed=0) != plan_turns(STAGES, num_passes=2, seed=1)


def test_a_number_of_turns_is_shared_by_size():
    turns = plan_turns(STAGES, num_turns=90)
    assert collections.Counter(turn.stage for turn in turns) == {1: 40, 2: 20, 3: 30}
    assert collections.Counter(turn.row for turn in turns) == dict.fromkeys(range(9), 10)
    assert [turn.stage for turn in plan_turns(STAGES, num_turns=5)] == [1, 1, 2, 3, 3]


def test_a_row_that_cannot_be_read_gives_its_turn_to_the_next(vlm):
    pairs = make_pairs(3)
    pairs[1] = make_pair(1, images=(ImageSource(path="/nowhere/image.png"),))
    rows = EncodedRows(pairs, RowEncoder(vlm.processor))
    dataset = TurnDataset(rows, [Turn(0, 1), Turn(1, 1), Turn(2, 2)], None, ("chosen", "rejected"))
    example = dataset[1]
    assert (example.row.id, example.stage) == (pairs[2].id, 1)
    assert [skip.reason for skip in example.skips] == ["missing-image"]
    batch = PreferenceCollator(("chosen", "rejected"), 0)([dataset[i] for i in range(3)])["batch"]
    assert len(batch.skips) == 1 and batch.stages.tolist() == [1, 1, 2]
    assert batch.reference is None


def test_many_unreadable_rows_end_the_training(vlm):
    pairs = [make_pair(i, images=(ImageSource(path=f"/nowhere/{i}.png"),)) for i in range(4)]
    dataset = TurnDataset(
        EncodedRows(pairs, RowEncoder(vlm.processor)), [Turn(i, 1) for i in range(4)], None, ("chosen",)
    )
    with pytest.raises(UserError, match="4 rows one after the other"):
        dataset[0]
