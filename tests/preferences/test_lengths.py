"""Rows are measured without decoding their pictures, and what a processor claims is checked."""

from __future__ import annotations

import numpy as np
import pytest

from mfpo.data.folder import open_dataset
from mfpo.data.writer import DatasetWriter
from mfpo.models.load import load_vlm
from mfpo.preferences import encoding
from mfpo.preferences.encoding import EncodedRows, RowEncoder
from mfpo.preferences.lengths import measure_rows
from mfpo.records import ImageSource
from models.test_other_architectures import llava_next, qwen2_vl
from preference_rows import make_pair, make_pairs, png


@pytest.fixture
def processor(tiny_llava):
    return load_vlm(str(tiny_llava), device="cpu", dtype="float32").processor


def encoded_lengths(pairs, processor):
    rows = [RowEncoder(processor, rejected_image=False).encode(pair) for pair in pairs]
    return [(len(row.prompt["input_ids"]), len(row.chosen), len(row.rejected)) for row in rows]


def measured(lengths):
    return [(row.prompt, row.chosen, row.rejected) for row in lengths.rows]


def test_counted_lengths_are_the_encoded_ones(processor, tmp_path, monkeypatch):
    pairs = make_pairs(30)
    expected = encoded_lengths(pairs, processor)
    with DatasetWriter(tmp_path / "data") as writer:
        for pair in pairs:
            writer.write(pair)
    opened = []
    decode = encoding.open_image
    monkeypatch.setattr(encoding, "open_image", lambda source: (opened.append(1), decode(source))[1])
    for rows in (pairs, open_dataset(tmp_path / "data")):
        opened.clear()
        lengths = measure_rows(EncodedRows(rows, RowEncoder(processor, max_length=30)))
        assert measured(lengths) == expected and lengths.complete
        assert [row.row for row in lengths.rows] == list(range(30))
        assert {row.image for row in lengths.rows} == {16} and all(row.ends for row in lengths.rows)
        assert lengths.how == "all 30 rows, by their text" and len(opened) == 8


@pytest.mark.parametrize("make", [qwen2_vl, llava_next])
def test_pictures_of_many_sizes(make):
    """Processors whose tokens depend on the picture: by its size where they can tell, else by encoding."""
    processor = make().processor
    rng = np.random.default_rng(0)
    sizes = [(40, 40), (64, 24), (20, 60), (50, 33), (48, 48), (90, 30)] * 2
    pairs = [
        make_pair(i, images=(png(rng.integers(0, 256, (*size, 3), dtype=np.uint8)),), regions=())
        for i, size in enumerate(sizes)
    ]
    lengths = measure_rows(EncodedRows(pairs, RowEncoder(processor)))
    assert measured(lengths) == encoded_lengths(pairs, processor)
    assert len({row.image for row in lengths.rows}) > 2


def test_a_processor_that_is_wrong_is_not_believed(processor, monkeypatch):
    pairs = make_pairs(6)
    monkeypatch.setattr(
        type(processor),
        "_get_num_multimodal_tokens",
        lambda self, image_sizes: {"num_image_tokens": [15] * len(image_sizes)},
    )
    lengths = measure_rows(EncodedRows(pairs, RowEncoder(processor)))
    assert measured(lengths) == encoded_lengths(pairs, processor)
    assert lengths.how == "6 of 6 rows, encoded; the processor cannot tell the tokens of a picture"


def test_rows_that_cannot_be_measured_are_reported(processor, monkeypatch):
    monkeypatch.delattr(type(processor), "_get_num_multimodal_tokens")
    pairs = make_pairs(3)
    pairs[1] = make_pair(1, images=(ImageSource(path="/nowhere/a.png"),))
    lengths = measure_rows(EncodedRows(pairs, RowEncoder(processor)))
    assert [row.row for row in lengths.rows] == [0, 2]
    assert [error.reason for error in lengths.errors] == ["missing-image"]
