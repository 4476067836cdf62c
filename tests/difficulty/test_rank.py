from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from killed import kill_after_chunks
from mfpo.data.folder import open_dataset
from mfpo.data.writer import DatasetWriter
from mfpo.difficulty import chunks, scores, store
from mfpo.difficulty.config import RankConfig
from mfpo.difficulty.fingerprint import fingerprint
from mfpo.difficulty.rank import rank, run
from mfpo.difficulty.scores import ReferenceScores, compute_scores
from mfpo.errors import UserError
from mfpo.models.load import load_vlm
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.encoding import SEQUENCES, EncodedRows, NoiseOverride, RowEncoder
from mfpo.records import ImageSource, Noise, user_message
from preference_rows import make_pair, make_pairs


@pytest.fixture
def vlm(tiny_llava):
    return load_vlm(str(tiny_llava), device="cpu", dtype="float32")


@pytest.fixture
def dataset(tmp_path):
    with DatasetWriter(tmp_path / "data") as writer:
        for pair in make_pairs(7):
            writer.write(pair)
    return tmp_path / "data"


def test_files_beside_the_dataset(tiny_llava, dataset):
    config = RankConfig(dataset=str(dataset), model_name_or_path=str(tiny_llava), per_device_batch_size=3)
    result = run(replace(config, precision="float32"))
    table = pq.read_table(dataset / "reference" / f"{result.fingerprint}.parquet").to_pydict()
    logps = load_file(dataset / "reference" / f"{result.fingerprint}.safetensors")
    assert table["id"] == [pair.id for pair in make_pairs(7)]
    assert set(logps) == set(SEQUENCES) and all(len(v) == 7 and (v < 0).all() for v in logps.values())
    for name in ("paper", "token-mean"):
        order = sorted(range(7), key=table[f"entropy_{name}"].__getitem__)
        assert [table[f"difficulty_{name}"][row] for row in order] == ["easy"] * 3 + ["medium"] * 2 + [
            "hard"
        ] * 2
    again = run(replace(config, precision="float32"))
    assert again.reused and not result.reused
    assert again.fingerprint == result.fingerprint
    assert torch.equal(again.scores.logps["chosen"], result.scores.logps["chosen"])


def test_rows_that_cannot_be_read_are_told_with_a_reason(tiny_llava, tmp_path, vlm):
    with DatasetWriter(tmp_path / "data") as writer:
        for pair in make_pairs(3):
            writer.write(pair)
    config = RankConfig(dataset=str(tmp_path / "data"), model_name_or_path=str(tiny_llava), max_length=8)
    with pytest.raises(UserError, match="none of the 3 rows can be used: "):
        run(config)


def test_rows_without_a_picture_to_swap_in_are_left_out(vlm, tmp_path):
    with DatasetWriter(tmp_path / "data", rejected_images=True) as writer:
        for at, pair in enumerate(make_pairs(4)):
            writer.write(replace(pair, rejected_images=pair.images if at % 2 else ()))
    result = rank(vlm, RankConfig(dataset=str(tmp_path / "data"), noise_scope="swap"), "float32")
    assert result.scores.ids == [pair.id for pair in make_pairs(4)[1::2]] and result.skipped == 2


def test_4_bit_weights_are_asked_for_as_in_training(tiny_llava, dataset):
    config = RankConfig(dataset=str(dataset), model_name_or_path=str(tiny_llava), load_in_4bit=True)
    with pytest.raises(UserError, match="4-bit weights need a CUDA GPU"):
        run(config)


def test_the_dataset_is_opened_before_the_model_is_loaded(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        run(RankConfig(dataset=str(tmp_path / "nowhere"), model_name_or_path=str(tmp_path / "no model")))
    with pytest.raises(UserError, match="--model_name_or_path"):
        run(RankConfig(dataset=str(tmp_path)))


def test_scores_do_not_depend_on_the_batch_size(vlm):
    rows = EncodedRows(make_pairs(5), RowEncoder(vlm.processor))
    one, many = (
        compute_scores(vlm.model, rows, ImageEncoder(vlm.model), SEQUENCES, batch_size=size, progress=False)[
            0
        ]
        for size in (1, 5)
    )
    for name in SEQUENCES:
        assert torch.allclose(one.logps[name], many.logps[name], atol=1e-5)
    for name in one.entropies:
        assert torch.allclose(one.entropies[name], many.entropies[name], atol=1e-5)


def test_unreadable_rows_are_recorded(vlm):
    pairs = make_pairs(4)
    pairs[1] = make_pair(1, images=(ImageSource(path="/nowhere/a.png"),))
    rows = EncodedRows(pairs, RowEncoder(vlm.processor))
    scores, skips = compute_scores(
        vlm.model, rows, ImageEncoder(vlm.model), SEQUENCES, batch_size=2, progress=False
    )
    assert scores.ids == [pairs[i].id for i in (0, 2, 3)]
    assert [(skip.where, skip.reason) for skip in skips] == [(f"row {pairs[1].id}", "missing-image")]


def test_round_trip_on_disk(tmp_path):
    scores = ReferenceScores(
        ["a", "b"],
        {name: torch.tensor([-1.5, -2.5]) for name in SEQUENCES},
        {name: torch.tensor([0.1, 0.2], dtype=torch.float64) for name in ("paper", "token-mean")},
    )
    scores.save(tmp_path, "f00")
    loaded = ReferenceScores.load(tmp_path, "f00")
    assert loaded.ids == scores.ids
    assert loaded.logps_of("b", SEQUENCES) == dict.fromkeys(SEQUENCES, -2.5)
    assert torch.equal(loaded.entropies["paper"], scores.entropies["paper"])
    assert ReferenceScores.load(tmp_path, "other") is None


def test_fingerprint_changes_with_all_that_matters_and_nothing_else(vlm):
    pairs = make_pairs(3)

    def of(pairs=pairs, precision="float32", **settings):
        return fingerprint(vlm.model, RowEncoder(vlm.processor, **settings), pairs, precision).digest

    base = of()
    vlm.processor.tokenizer(["a", "a mug"], padding=True, truncation=True, max_length=20)
    assert of(list(reversed(pairs))) == of(rejected_image=False) == base
    different = [
        of(pairs[:2]),
        of([*pairs[:2], make_pair(9)]),
        of([*pairs[:2], replace(pairs[2], noise=Noise(seed=99))]),
        of([*pairs[:2], replace(pairs[2], regions=())]),
        of(noise=NoiseOverride(step=700)),
        of(noise=NoiseOverride(feather=0.1)),
        of(noise=NoiseOverride(step=300, step_max=700)),
        of(max_length=30),
        of(precision="mixed"),
    ]
    vlm.processor.chat_template = " " + vlm.processor.chat_template
    different.append(of())
    vlm.processor.chat_template = vlm.processor.chat_template[1:]
    with torch.no_grad():
        next(vlm.model.parameters()).view(-1)[0] += 1e-3
    different.append(of())
    assert len({base, *different}) == 1 + len(different)


@pytest.mark.parametrize(
    "noise", [{}, {"noise_step": 300, "noise_step_max": 950, "noise_feather": 0.1}], ids=["own", "drawn"]
)
def test_training_uses_what_rank_stored(vlm, dataset, tmp_path, monkeypatch, noise):
    from mfpo.training import train as module
    from mfpo.training.config import TrainConfig

    rank(vlm, RankConfig(dataset=str(dataset), **noise), "float32")
    monkeypatch.setattr(store, "compute_scores", lambda *a, **k: pytest.fail("scored again"))
    for objective in ("dpo", "mfpo"):
        config = TrainConfig(
            output_dir=str(tmp_path / objective),
            objective=objective,
            max_steps=1,
            learning_rate=0.0,
            trainer={"disable_tqdm": True},
            **noise,
        )
        module.train(vlm, open_dataset(dataset), config)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_killed_pass_goes_on_and_ends_with_the_same_bits(tiny_llava, tmp_path, monkeypatch):
    pairs = make_pairs(14)
    pairs[5] = replace(pairs[5], prompt=user_message("Two images?", num_images=2))
    for name in ("whole", "killed"):
        with DatasetWriter(tmp_path / name) as writer:
            for pair in pairs:
                writer.write(pair)
    killed = tmp_path / "killed"
    flags = ("--model_name_or_path", str(tiny_llava), "--precision", "float32")
    kill_after_chunks(2, "rank", "--dataset", str(killed), *flags)
    (parts,) = (killed / "reference").iterdir()
    assert len(list(parts.iterdir())) == 2
    # A chunk that was cut off while it got its name, by a disk that lost its cache, is made again.
    last = max(parts.iterdir())
    last.write_bytes(last.read_bytes()[:-7])

    monkeypatch.setattr(chunks, "CHUNK_ROWS", 4)
    seen = []
    encode = RowEncoder.encode

    def spy(self, pair):
        seen.append(pair.id)
        return encode(self, pair)

    monkeypatch.setattr(RowEncoder, "encode", spy)
    settings = RankConfig(model_name_or_path=str(tiny_llava), precision="float32", dataset=str(killed))
    result = run(settings)
    layout_check, rest = seen[:2], seen[2:]
    assert layout_check == [pair.id for pair in pairs[:2]]
    assert rest == [pair.id for pair in pairs[4:]], "the first chunk is not computed again"
    run(replace(settings, dataset=str(tmp_path / "whole")))
    assert files(killed / "reference") == files(tmp_path / "whole" / "reference")
    assert not parts.exists() and len(files(killed / "reference")) == 4
    assert result.skipped == 1 and len(result.scores.ids) == 13


def bits(found):
    return [
        found.ids,
        *(values.tolist() for values in (*found.logps.values(), *found.entropies.values())),
        *(ragged.values.tolist() for ragged in found.tokens.values()),
    ]


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_encoding_ahead_changes_no_bit_and_no_order(vlm, monkeypatch, batch_size):
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 4)
    pairs = make_pairs(11)
    for number in (0, 4, 5, 6, 7, 9):
        pairs[number] = make_pair(number, images=(ImageSource(path=f"/nowhere/{number}.png"),))
    found = []
    for ahead in (0, 1):
        monkeypatch.setattr(scores, "batches_ahead", lambda device, ahead=ahead: ahead)
        rows = EncodedRows(pairs, RowEncoder(vlm.processor))
        found.append(
            compute_scores(
                vlm.model,
                rows,
                ImageEncoder(vlm.model, cache_bytes=0),
                SEQUENCES,
                batch_size=batch_size,
                progress=False,
                tokens=True,
            )
        )
    (plain, skips), (ahead, same_skips) = found
    assert bits(plain) == bits(ahead) and len(plain.ids) == 5
    assert skips == same_skips and [skip.detail[9] for skip in skips] == list("045679")


def test_the_cpu_is_left_to_the_model_that_computes_on_it():
    assert [scores.batches_ahead(torch.device(kind)) for kind in ("cpu", "cuda", "mps")] == [0, 1, 1]


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_pass_that_fails_at_a_row_keeps_what_it_has_and_leaves_no_thread(vlm, tmp_path, monkeypatch, ahead):
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 4)
    monkeypatch.setattr(scores, "batches_ahead", lambda device: ahead)
    pairs, threads, seen = make_pairs(10), set(threading.enumerate()), []
    encode, fails = RowEncoder.encode, {pairs[6].id}

    def spy(self, pair):
        if pair.id in fails:
            raise UserError("this layout is not known")
        seen.append(pair.id)
        return encode(self, pair)

    monkeypatch.setattr(RowEncoder, "encode", spy)

    def run_pass(folder):
        rows = EncodedRows(pairs, RowEncoder(vlm.processor), cache_bytes=0)
        images = ImageEncoder(vlm.model, cache_bytes=0)
        return compute_scores(
            vlm.model, rows, images, SEQUENCES, batch_size=2, progress=False, folder=folder
        )[0]

    with pytest.raises(UserError, match="this layout is not known"):
        run_pass(tmp_path / "parts")
    assert set(threading.enumerate()) == threads
    assert [path.stem for path in (tmp_path / "parts").iterdir()] == ["000000000"]
    fails.clear()
    seen.clear()
    resumed = run_pass(tmp_path / "parts")
    assert seen == [pair.id for pair in pairs[4:]]
    assert bits(resumed) == bits(run_pass(None))


def test_scores_that_do_not_fit_are_refused_with_the_reason(vlm, dataset, capsys):
    rank(vlm, RankConfig(dataset=str(dataset)), "float32")
    capsys.readouterr()
    rank(vlm, RankConfig(dataset=str(dataset), max_length=1000, noise_step=700), "float32")
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if line.startswith("stored scores are not used: ")]
    assert line.endswith("other max_length (2048 then, 1000 now), noise and regions")
    with torch.no_grad():
        next(vlm.model.parameters()).view(-1)[0] += 1e-3
    rank(vlm, RankConfig(dataset=str(dataset), dry_run=True), "float32")
    out = capsys.readouterr().out
    assert "other model weights\n" in out
    assert "7 rows" in out and "the whole pass takes about" in out and "log-probabilities chosen" in out


def test_the_layout_is_told(vlm, dataset, capsys):
    for setting, said in (("auto", "prompts shared by their responses"), ("off", "plain sequences, as set")):
        rank(vlm, RankConfig(dataset=str(dataset), shared_prefix=setting), "float32")
        assert f"layout: {said}" in capsys.readouterr().out


def test_a_dry_run_stores_nothing(vlm, dataset):
    assert rank(vlm, RankConfig(dataset=str(dataset), dry_run=True), "float32") is None
    assert not (dataset / "reference").exists()


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="only Linux tells what is mapped")
def test_log_probabilities_are_memory_mapped(vlm, dataset):
    rank(vlm, RankConfig(dataset=str(dataset)), "float32")
    (path,) = (dataset / "reference").glob("*.safetensors")
    scores = ReferenceScores.load(path.parent, path.stem)
    assert str(path) in Path("/proc/self/maps").read_text() and len(scores.logps["chosen"]) == 7


def test_a_folder_is_fingerprinted_without_its_images(vlm, dataset):
    encoder = RowEncoder(vlm.processor)
    rows = open_dataset(dataset)
    light = list(rows.without_images())
    assert [pair.id for pair in light] == rows.ids and not any(pair.images for pair in light)
    assert [replace(pair, images=()) for pair in rows] == light
    assert fingerprint(vlm.model, encoder, rows, "float32") == fingerprint(
        vlm.model, encoder, list(rows), "float32"
    )
