"""Rows are ranked again after the first stage, and that is resumable too."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch

from killed import kill_after_chunks
from mfpo.data.files import save_config
from mfpo.data.writer import DatasetWriter
from mfpo.difficulty import chunks
from mfpo.difficulty import scores as scoring
from mfpo.difficulty.scores import compute_scores
from mfpo.difficulty.semantic import SemanticSettings, semantic_entropies
from mfpo.difficulty.stages import plan_stages, split_rest
from mfpo.errors import Stopped, UserError
from mfpo.models.load import load_vlm
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.encoding import EncodedRows, RowEncoder
from mfpo.training.checkpoints import SavedOrder
from mfpo.training.train import run, train
from mfpo.training.trainer import PreferenceTrainer
from preference_rows import make_pairs
from training.test_resume import at_call, equal, metrics

PAIRS = make_pairs(11)
SETTINGS = {"rescore_between_stages": True, "difficulty": "token-mean", "learning_rate": 3e-2}


@pytest.fixture
def load(tiny_llava):
    return lambda: load_vlm(str(tiny_llava), device="cpu", dtype="float32")


def entropies_of(folder, ids):
    """Entropies of rows under a checkpoint, by a pass of their own."""
    vlm = load_vlm(str(folder), device="cpu", dtype="float32")
    rows = EncodedRows(PAIRS, RowEncoder(vlm.processor, rejected_image=False))
    scores, _ = compute_scores(
        vlm.model, rows, ImageEncoder(vlm.model), ("chosen",), batch_size=2, progress=False
    )
    known = dict(zip(scores.ids, scores.entropies["token-mean"].tolist(), strict=True))
    return [known[identifier] for identifier in ids]


@pytest.mark.parametrize("stages", ["easy_to_hard", "hard_to_easy"])
def test_what_is_left_is_ranked_by_the_weights_of_that_moment(load, config_in, tmp_path, monkeypatch, stages):
    seen: list[tuple[str, float]] = []
    compute_loss = PreferenceTrainer.compute_loss

    def spy(self, model, inputs, *args, **kwargs):
        batch = inputs["batch"]
        seen.extend(zip(batch.ids, batch.stages.tolist(), strict=True))
        return compute_loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(PreferenceTrainer, "compute_loss", spy)
    result = train(load(), PAIRS, config_in(stages=stages, **SETTINGS))
    assert result.steps == 6 and sorted(row for row, _ in seen) == [pair.id for pair in PAIRS]
    by_stage = {number: [row for row, stage in seen if stage == number] for number in (1, 2, 3)}
    sizes = [4, 4, 3] if stages == "easy_to_hard" else [3, 4, 4]
    assert [len(by_stage[number]) for number in (1, 2, 3)] == sizes

    boundary = sizes[0] // 2
    checkpoint = tmp_path / "run" / f"checkpoint-{boundary}"
    second, third = (entropies_of(checkpoint, by_stage[number]) for number in (2, 3))
    easier, harder = (second, third) if stages == "easy_to_hard" else (third, second)
    assert max(easier) <= min(harder)
    order = SavedOrder.load(checkpoint)
    assert [row for row, _ in order.schedule] == [row for row, _ in seen]
    saved = json.loads((checkpoint / "order.json").read_text())
    assert list(saved) == ["planned", "turns", "settings"], "as earlier versions wrote it"
    # The new order is not the old one, or the test would show nothing.
    seen.clear()
    settings = {**SETTINGS, "rescore_between_stages": False}
    train(load(), PAIRS, config_in(output_dir=str(tmp_path / "plain"), stages=stages, **settings))
    assert {row for row, stage in seen if stage == 1} == set(by_stage[1])
    assert {row for row, stage in seen if stage == 2} != set(by_stage[2])


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_training_that_ranks_again_resumes_exactly(load, config_in, tmp_path, monkeypatch, step):
    """Stopped before, at and after the step at which rows are ranked."""
    settings = {**SETTINGS, "save_steps": 100}
    train(load(), PAIRS, config_in(output_dir=str(tmp_path / "whole"), **settings))
    config = config_in(output_dir=str(tmp_path / "cut"), resume_from_checkpoint="auto", **settings)
    with monkeypatch.context() as patch:
        at_call(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped, match=f"after step {step} of 6"):
            train(load(), PAIRS, config)
    resumed = train(load(), PAIRS, config)
    assert resumed.steps == 6 and equal(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.slow
def test_killed_while_rows_are_ranked(tiny_llava, config_in, tmp_path, monkeypatch):
    with DatasetWriter(tmp_path / "data") as writer:
        for pair in PAIRS:
            writer.write(pair)
    names = {"dataset": str(tmp_path / "data"), "model_name_or_path": str(tiny_llava)}
    settings = {**SETTINGS, **names, "save_steps": 100, "resume_from_checkpoint": "auto"}
    cut = config_in(output_dir=str(tmp_path / "cut"), **settings)
    save_config(cut, tmp_path / "cut.yaml")
    # Three chunks of the reference pass, and the first of the two of the seven rows that are left.
    kill_after_chunks(4, "train", "--config", str(tmp_path / "cut.yaml"))
    assert SavedOrder.load(tmp_path / "cut" / "checkpoint-2").schedule is None
    (parts,) = (tmp_path / "cut" / "reference").glob("after-checkpoint-2.*.parts")
    assert len(list(parts.iterdir())) == 1

    monkeypatch.setattr(chunks, "CHUNK_ROWS", 4)
    scored = []
    score_rows = scoring._score_rows
    monkeypatch.setattr(
        scoring, "_score_rows", lambda m, rows, *a: (scored.extend(rows), score_rows(m, rows, *a))[1]
    )
    run(cut)
    assert len(scored) == 3, "the first chunk is not computed again"
    run(config_in(output_dir=str(tmp_path / "whole"), **settings))
    orders = [SavedOrder.load(tmp_path / name / "checkpoint-2") for name in ("cut", "whole")]
    assert orders[0] == orders[1]
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")
    assert equal(tmp_path / "cut", tmp_path / "whole")
    assert not list((tmp_path / "cut" / "reference").glob("*.parts"))


def test_ranking_again_needs_checkpoints_that_can_be_gone_on_from(load, config_in, tmp_path):
    config = config_in(rescore_between_stages=True, trainer={"save_only_model": True})
    with pytest.raises(UserError, match=r"save_only_model=true.*lack optimizer and schedule"):
        train(load(), PAIRS, config)
    assert not list((tmp_path / "run").iterdir()), "it is told before the reference pass"


def test_stages_that_are_left_keep_their_sizes():
    for count in range(3, 20):
        entropies = [float(number * 7 % count) for number in range(count)]
        for order in ("easy_to_hard", "hard_to_easy"):
            _, *later = plan_stages(order, count, entropies)
            left = sorted(row for stage in later for row in stage.rows)
            again = split_rest(order, left, [entropies[row] for row in left], [s.name for s in later])
            assert again == later, "with the same entropies it is the same plan"


def test_semantic_difficulty(load, config_in, tmp_path):
    """Stored by rank, used by train, and taken anew between stages with the same settings."""
    vlm = load()
    with pytest.raises(UserError, match="no semantic entropies"):
        train(load(), PAIRS, config_in(difficulty="semantic"))
    settings = SemanticSettings(samples=3, max_new_tokens=4, similarity=0.7)
    digest = next((tmp_path / "run" / "reference").glob("*.parquet")).stem
    found = semantic_entropies(vlm, PAIRS, settings, batch_size=8, progress=False)
    found.save(tmp_path / "run" / "reference", digest)
    config = config_in(difficulty="semantic", rescore_between_stages=True, max_steps=6)
    result = train(load(), PAIRS, config)
    assert result.steps == 6
    ranked = sorted(range(11), key=lambda row: (found.entropies[row].item(), row))
    order = SavedOrder.load(tmp_path / "run" / "checkpoint-2").schedule
    first = {row for row, stage in order if stage == 1}
    assert first == {PAIRS[row].id for row in ranked[:4]}
    assert torch.isfinite(found.entropies).all()


@pytest.mark.parametrize("stages", ["none", "random"])
def test_nothing_to_rank_between_stages(load, config_in, stages):
    with pytest.raises(UserError, match="nothing to rank between stages"):
        train(load(), PAIRS, config_in(stages=stages, rescore_between_stages=True))
