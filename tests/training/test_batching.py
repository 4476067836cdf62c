from __future__ import annotations

import collections
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from mfpo.difficulty.scores import compute_scores
from mfpo.difficulty.stages import Stage
from mfpo.errors import UserError
from mfpo.models.logprobs import Layout
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.encoding import SEQUENCES, EncodedRows, RowEncoder
from mfpo.records import ImageSource
from mfpo.training.batching import CurriculumDataset, PreferenceCollator, ScheduledRow, plan_curriculum
from preference_rows import make_pair, make_pairs

STAGES = [Stage("easy", (0, 1, 2, 3)), Stage("medium", (4, 5)), Stage("hard", (6, 7, 8))]


def test_stages_follow_each_other_and_each_pass_is_a_new_order():
    schedule = plan_curriculum(STAGES, num_passes=2, seed=0)
    assert [scheduled.stage for scheduled in schedule] == [1] * 8 + [2] * 4 + [3] * 6
    first, second = ([scheduled.row for scheduled in schedule[start : start + 4]] for start in (0, 4))
    assert sorted(first) == sorted(second) == [0, 1, 2, 3]
    assert first != second
    assert schedule == plan_curriculum(STAGES, num_passes=2, seed=0)
    assert schedule != plan_curriculum(STAGES, num_passes=2, seed=1)


def test_a_number_of_examples_is_shared_by_size():
    schedule = plan_curriculum(STAGES, num_examples=90)
    assert collections.Counter(scheduled.stage for scheduled in schedule) == {1: 40, 2: 20, 3: 30}
    assert collections.Counter(scheduled.row for scheduled in schedule) == dict.fromkeys(range(9), 10)
    assert [scheduled.stage for scheduled in plan_curriculum(STAGES, num_examples=5)] == [1, 1, 2, 3, 3]


def test_a_row_that_cannot_be_read_gives_its_place_to_the_next(vlm):
    pairs = make_pairs(3)
    pairs[1] = make_pair(1, images=(ImageSource(path="/nowhere/image.png"),))
    rows = EncodedRows(pairs, RowEncoder(vlm.processor))
    dataset = CurriculumDataset(
        rows, [ScheduledRow(0, 1), ScheduledRow(1, 1), ScheduledRow(2, 2)], None, ("chosen", "rejected")
    )
    example = dataset[1]
    assert (example.row.id, example.stage) == (pairs[2].id, 1)
    assert [skip.reason for skip in example.skips] == ["missing-image"]
    batch = PreferenceCollator(("chosen", "rejected"), 0)([dataset[i] for i in range(3)])["batch"]
    assert len(batch.skips) == 1 and batch.stages.tolist() == [1, 1, 2]
    assert batch.reference is None


def test_many_unreadable_rows_end_the_training(vlm):
    pairs = [make_pair(i, images=(ImageSource(path=f"/nowhere/{i}.png"),)) for i in range(4)]
    dataset = CurriculumDataset(
        EncodedRows(pairs, RowEncoder(vlm.processor)),
        [ScheduledRow(i, 1) for i in range(4)],
        None,
        ("chosen",),
    )
    with pytest.raises(UserError, match="4 rows one after the other"):
        dataset[0]


def tensors(found: Any) -> Iterator[torch.Tensor]:
    """All tensors in dataclasses and containers."""
    if isinstance(found, torch.Tensor):
        yield found
    elif is_dataclass(found):
        for item in fields(found):
            yield from tensors(getattr(found, item.name))
    elif isinstance(found, dict):
        for value in found.values():
            yield from tensors(value)
    elif isinstance(found, (list, tuple)):
        for value in found:
            yield from tensors(value)


@pytest.fixture(params=[Layout(), Layout(shared=True, chunked=True)], ids=["plain", "shared"])
def parts(request, vlm) -> dict[str, Any]:
    """A step in several batches that hold all that a batch can hold."""
    rows = EncodedRows(make_pairs(4), RowEncoder(vlm.processor))
    scores, _ = compute_scores(
        vlm.model, rows, ImageEncoder(vlm.model), SEQUENCES, batch_size=4, progress=False, tokens=True
    )
    schedule = [ScheduledRow(i, 1) for i in range(4)]
    dataset = CurriculumDataset(rows, schedule, scores, SEQUENCES, tokens=True)
    collator = PreferenceCollator(SEQUENCES, 0, request.param, max_tokens=300, segments=True)
    return collator([dataset[i] for i in range(4)])


def test_the_data_loader_pins_every_tensor(parts, monkeypatch) -> None:
    pinned: list[torch.Tensor] = []

    def pin(self: torch.Tensor) -> torch.Tensor:
        pinned.append(self.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    before, after = list(tensors(parts)), list(tensors(pin_memory(parts)))
    assert {id(tensor) for tensor in after} == {id(tensor) for tensor in pinned}
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert parts["more"] and not {id(tensor) for tensor in before} & {id(tensor) for tensor in pinned}


def test_all_but_the_pictures_go_to_the_device_together(parts, monkeypatch) -> None:
    moved = []
    to = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *a, **k: (moved.append((id(self), k)), to(self, *a, **k))[1]
    )
    batch = parts["batch"]
    batch.to("cpu", non_blocking=True)
    pictures = {id(tensor) for image in batch.responses.images for tensor in image.tensors.values()}
    assert {number for number, _ in moved} == {id(tensor) for tensor in tensors(batch)} - pictures
    assert all(how == {"non_blocking": True} for _, how in moved)
