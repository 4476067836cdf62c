from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mfpo.data.source_config import SourceConfig
from mfpo.data.sources import Source
from mfpo.errors import Skip, UserError
from mfpo.records import Sample, text_of, user_message

QUESTION, CHOSEN, REJECTED = "What is it?", "A red mug.", "A blue mug."
PLAIN = {"image": "a.png", "question": QUESTION, "chosen": CHOSEN, "rejected": REJECTED}


def jsonl(path: Path, rows: list[Any]) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def read_source(dataset: str, image_dir: str | None = None, **settings: Any) -> Iterator[Sample | Skip]:
    return Source(SourceConfig(dataset=dataset, image_dir=image_dir, **settings)).items()


def samples(dataset: str, image_dir: str | None = None) -> list[Sample]:
    rows = list(read_source(dataset, image_dir))
    assert all(isinstance(row, Sample) for row in rows), rows
    return [row for row in rows if isinstance(row, Sample)]


def skips(dataset: str) -> list[tuple[str, str]]:
    return [(row.where, row.reason) for row in read_source(dataset) if isinstance(row, Skip)]


CONVERSATION = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]


def answer(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


def ratings(*values: int) -> dict[str, Any]:
    aspects = ("Helpfulness", "Visual Faithfulness", "Ethical Considerations")
    return {
        aspect: {"Rating": str(value), "Rationale": "x"}
        for aspect, value in zip(aspects, values, strict=True)
    }


SHAREGPT = {
    "conversations": [{"from": "human", "value": f"<image>{QUESTION}"}],
    "chosen": {"from": "gpt", "value": CHOSEN},
    "rejected": {"from": "gpt", "value": REJECTED},
    "images": ["a.png"],
}
FORMATS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "rlhf-v": {
        "image": "a.png",
        "text": json.dumps({"question": QUESTION, "chosen": CHOSEN, "rejected": REJECTED}),
    },
    "rlaif-v": {**PLAIN, "image": {"bytes": None, "path": "a.png"}, "idx": 3},
    "trl": {
        "images": ["a.png"],
        "prompt": CONVERSATION,
        "chosen": answer(CHOSEN),
        "rejected": answer(REJECTED),
    },
    "trl plain contents": {
        "images": ["a.png"],
        "prompt": [{"role": "user", "content": QUESTION}],
        "chosen": [{"role": "assistant", "content": CHOSEN}],
        "rejected": [{"role": "assistant", "content": REJECTED}],
    },
    "trl text": {"image": "a.png", "prompt": QUESTION, "chosen": CHOSEN, "rejected": REJECTED},
    "trl repeated prompt": {
        "images": ["a.png"],
        "prompt": CONVERSATION,
        "chosen": CONVERSATION + answer(CHOSEN),
        "rejected": CONVERSATION + answer(REJECTED),
    },
    "sharegpt": SHAREGPT,
    "alpaca": {
        "instruction": QUESTION,
        "input": "",
        "chosen": CHOSEN,
        "rejected": REJECTED,
        "images": ["a.png"],
    },
    "vlfeedback": {
        "id": "a",
        "image": {"bytes": None, "path": "a.png"},
        "prompt": QUESTION,
        "models": ["x", "y", "z"],
        "completions": [
            {"model": "x", "response": "Something.", "annotations": ratings(3, 4, 3)},
            {"model": "y", "response": REJECTED, "annotations": ratings(1, 5, 2)},
            {"model": "z", "response": CHOSEN, "annotations": ratings(4, 5, 5)},
        ],
    },
    "vlfeedback as records of lists": {
        "image": "a.png",
        "prompt": QUESTION,
        "completions": {
            "model": ["x", "y", "z"],
            "response": [CHOSEN, REJECTED, "Unrated."],
            "annotations": {"Helpfulness": {"Rating": ["5", "2", "N/A"], "Rationale": ["", "", ""]}},
        },
    },
    "ms-swift": {
        "images": ["a.png"],
        "messages": [
            {"role": "user", "content": f"<image>{QUESTION}"},
            {"role": "assistant", "content": CHOSEN},
        ],
        "rejected_response": REJECTED,
    },
    "image path": {"image_path": "a.png", "question": QUESTION, "chosen": CHOSEN, "rejected": REJECTED},
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_row(tmp_path: Path, name: str) -> None:
    (row,) = samples(jsonl(tmp_path / "pairs.jsonl", [FORMATS[name]]))
    assert row.prompt == user_message(QUESTION)
    assert (row.chosen, row.rejected) == (answer(CHOSEN), answer(REJECTED))
    assert [source.path for source in row.images] == [str(tmp_path / "a.png")]


def write_csv(path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, PLAIN.keys(), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerow({**PLAIN, "chosen": "A mug,\nwith a line break."})
        writer.writerow(PLAIN)


def write_rows(path: Path) -> None:
    rows = [{**PLAIN, "chosen": "A mug,\nwith a line break."}, PLAIN]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    else:
        jsonl(path, rows)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("pairs.jsonl", write_rows),
        ("pairs.json", write_rows),
        ("pairs.parquet", write_rows),
        ("pairs.csv", write_csv),
        ("pairs.tsv", write_csv),
    ],
)
def test_every_kind_of_file(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    expected = ["A mug,\nwith a line break.", CHOSEN]
    for dataset in (tmp_path / name, tmp_path):
        assert [text_of(row.chosen) for row in samples(str(dataset))] == expected


def test_json_lines_under_the_name_of_json(tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    assert len(samples(jsonl(path, [PLAIN, PLAIN]))) == 2


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(PLAIN).encode() + b"\r\n")
    assert len(samples(str(path))) == 1


def test_a_folder_that_datasets_saved(tmp_path: Path) -> None:
    from datasets import Dataset, Features, Image, Value

    text = Value("string")
    rows = Dataset.from_list(
        [{**PLAIN, "image": {"bytes": b"raw", "path": "x/a.png"}}] * 3,
        features=Features({"image": Image(), "question": text, "chosen": text, "rejected": text}),
    )
    rows.save_to_disk(str(tmp_path / "saved"), num_proc=1)
    found = samples(str(tmp_path / "saved"))
    assert [row.images[0].data for row in found] == [b"raw"] * 3
    assert found[0].where == "saved:row 1" and found[2].where == "saved:row 3"


def test_image_dir_and_absolute_paths(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    data = jsonl(
        tmp_path / "p.jsonl", [PLAIN, {**PLAIN, "image": "/else/b.png"}, {**PLAIN, "image": "../c.png"}]
    )
    rows = samples(data, str(tmp_path / "pictures"))
    paths = [row.images[0].path for row in rows]
    assert paths == [str(tmp_path / "pictures/a.png"), "/else/b.png", str(tmp_path / "pictures/../c.png")]
    with pytest.raises(UserError, match="--image_dir"):
        samples(data, str(tmp_path / "nowhere"))


def test_several_images_and_their_places(tmp_path: Path) -> None:
    rows = [
        {**PLAIN, "image": ["a.png", "b.png"]},
        {**PLAIN, "image": ["a.png", "b.png"], "question": "Left <image>\nand right\n<image>\nWhich?"},
        {**PLAIN, "image": "a.png", "question": "<image><image> too many"},
    ]
    first, second, third = read_source(jsonl(tmp_path / "p.jsonl", rows))
    assert isinstance(first, Sample) and first.prompt == user_message(QUESTION, num_images=2)
    assert isinstance(second, Sample)
    assert second.prompt[0]["content"] == [
        {"type": "text", "text": "Left "},
        {"type": "image"},
        {"type": "text", "text": "and right"},
        {"type": "image"},
        {"type": "text", "text": "Which?"},
    ]
    assert third == Skip("p.jsonl:3", "image-count", "the prompt has 2 places for 1 images")


def test_answers_that_set_nothing_apart_leave_their_row_out(tmp_path: Path) -> None:
    rows = [PLAIN, {**PLAIN, "chosen": ""}, {**PLAIN, "rejected": " \n"}, {**PLAIN, "rejected": f"{CHOSEN} "}]
    kept, *left_out = read_source(jsonl(tmp_path / "p.jsonl", rows))
    assert isinstance(kept, Sample)
    assert left_out == [
        Skip("p.jsonl:2", "missing-value", "the chosen answer is empty"),
        Skip("p.jsonl:3", "missing-value", "the rejected answer is empty"),
        Skip("p.jsonl:4", "no-preference", "the chosen and the rejected answer are the same"),
    ]


def test_equal_answers_with_rejected_images_are_an_image_preference(tmp_path: Path) -> None:
    rows = [{**PLAIN, "rejected": CHOSEN, "rejected_images": ["b.png"]}]
    (row,) = samples(jsonl(tmp_path / "p.jsonl", rows))
    assert text_of(row.chosen) == text_of(row.rejected) == CHOSEN
    assert len(row.rejected_images) == 1


def test_other_columns_are_kept(tmp_path: Path) -> None:
    rows = [{**PLAIN, "id": 7, "origin_dataset": "COCO", "score": 0.5, "nested": {"a": 1}, "nothing": None}]
    (row,) = samples(jsonl(tmp_path / "p.jsonl", rows))
    assert row.extra == {"origin_dataset": "COCO", "score": 0.5, "source_id": 7}


BAD_ROWS: list[tuple[Any, str]] = [
    ('{"image": "a.png", "question"', "broken-json"),
    ("[1, 2]", "broken-json"),
    ({"image": "a.png", "caption": "x"}, "wrong-columns"),
    ({**PLAIN, "chosen": None}, "missing-value"),
    ({**PLAIN, "chosen": 3}, "bad-value"),
    ({**PLAIN, "question": ["a"]}, "bad-value"),
    ({**PLAIN, "image": None}, "missing-image"),
    ({**PLAIN, "image": []}, "missing-image"),
    ({**PLAIN, "image": {"bytes": None, "path": None}}, "missing-image"),
    ({**PLAIN, "image": 5}, "bad-value"),
    ({**PLAIN, "image": "a\0b.png"}, "bad-value"),
    ({**PLAIN, "image": "https://example.com/a.png"}, "remote-image"),
    ({"image": "a.png", "text": "{broken"}, "broken-json"),
    ({"image": "a.png", "text": '{"question": "x"}'}, "missing-value"),
    ('{"image": "a.png", "question": "\\ud83d", "chosen": "a", "rejected": "b"}', "broken-text"),
    ({**SHAREGPT, "conversations": [{"from": "alien", "value": "x"}]}, "bad-value"),
    ({**SHAREGPT, "conversations": [{"from": "gpt", "value": "x"}]}, "bad-value"),
    ({**SHAREGPT, "chosen": [{"from": "human", "value": "x"}]}, "bad-value"),
    ({**FORMATS["trl"], "chosen": [{"role": "assistant", "content": [{"type": "image"}]}]}, "bad-value"),
    ({**FORMATS["trl"], "prompt": [{"role": "user", "content": [{"type": "video"}]}]}, "bad-value"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD_ROWS)
def test_a_bad_row_costs_itself_only(tmp_path: Path, bad: Any, reason: str) -> None:
    dataset = jsonl(tmp_path / "p.jsonl", [PLAIN, bad, PLAIN])
    assert skips(dataset) == [("p.jsonl:2", reason)]
    assert len(list(read_source(dataset))) == 3


def test_a_bad_first_row_does_not_hide_the_format(tmp_path: Path) -> None:
    dataset = jsonl(tmp_path / "p.jsonl", [{"note": "made by hand"}, "{oops", PLAIN])
    assert sorted(skips(dataset)) == [("p.jsonl:1", "wrong-columns"), ("p.jsonl:2", "broken-json")]
    assert len(list(read_source(dataset))) == 3


def test_undecodable_text_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    line = json.dumps(PLAIN).encode()
    path.write_bytes(line + b"\n" + line.replace(b"red", b"r\xffd") + b"\n" + line + b"\n")
    assert skips(str(path)) == [("p.jsonl:2", "broken-json")]


def test_bad_lines_of_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    rows = [
        "image,question,chosen,rejected",
        "a.png,q,c,r",
        "a.png,q,c",
        "a.png,q,c,r,more",
        "b.png,q,\udcff,r",
    ]
    path.write_text("\n".join([*rows, "a.png,q,c,r"]), errors="surrogateescape")
    assert skips(str(path)) == [(f"p.csv:{line}", "broken-csv") for line in (3, 4, 5)]
    assert sum(isinstance(row, Sample) for row in read_source(str(path))) == 2


def test_wrong_columns_name_what_is_needed(tmp_path: Path) -> None:
    rows = [{"img": "a.png", "query": "q", "chosen": "c", "rejected": "r"}] * 3
    with pytest.raises(UserError) as caught:
        list(read_source(jsonl(tmp_path / "p.jsonl", rows)))
    text = str(caught.value)
    assert "p.jsonl" in text and "img, query, chosen, rejected" in text
    assert "missing" in text and "image" in text and "question" in text


def test_wrong_columns_suggest_a_renaming(tmp_path: Path) -> None:
    rows = [{"image": "a.png", "questions": "q", "chosen": "c", "rejected": "r"}]
    with pytest.raises(UserError, match=r"nearest is .*(question|prompt)"):
        list(read_source(jsonl(tmp_path / "p.jsonl", rows)))


def test_a_long_foreign_file_is_given_up_early(tmp_path: Path) -> None:
    dataset = jsonl(tmp_path / "p.jsonl", [{"a": 1}] * 150 + [PLAIN])
    with pytest.raises(UserError, match="fit no known layout"):
        list(read_source(dataset))


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("p.json", "[{]", "broken JSON"),
        ("p.parquet", "PAR1 not really", "not a Parquet file"),
        ("p.xlsx", "", "are not read"),
    ],
)
def test_files_that_cannot_be_parsed(tmp_path: Path, name: str, content: str, what: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=what):
        list(read_source(str(tmp_path / name)))


def test_what_is_not_there(tmp_path: Path) -> None:
    jsonl(tmp_path / "pairs.jsonl", [PLAIN])
    with pytest.raises(UserError, match=r"did you mean 'pairs.jsonl'"):
        list(read_source(str(tmp_path / "pears.jsonl")))
    for name in (".git", "LICENSE", "Makefile", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(UserError) as caught:
        list(read_source(str(tmp_path / "rlhf-v.parquet")))
    assert caught.value.fix == "check the path; data files there: pairs.jsonl"
    (tmp_path / "code").mkdir()
    (tmp_path / "code/LICENSE").touch()
    with pytest.raises(UserError) as caught:
        list(read_source(str(tmp_path / "code/rlhf-v.parquet")))
    assert caught.value.fix == "check the path"
    with pytest.raises(UserError, match=r"there is no folder .*/nowhere either"):
        list(read_source(str(tmp_path / "nowhere/rlhf-v.parquet")))
    with pytest.raises(UserError, match="neither a local path nor a dataset of the Hub"):
        list(read_source("nobody/has-this-dataset"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no data in this folder"):
        list(read_source(str(tmp_path / "empty")))
    jsonl(tmp_path / "more.jsonl", [PLAIN])
    with pytest.raises(UserError, match=r"several data files.*\n.*more.jsonl, pairs.jsonl"):
        list(read_source(str(tmp_path)))


@pytest.mark.parametrize(
    ("completions", "reason"),
    [
        ([{"response": "A.", "annotations": ratings(1, 2, 3)}], "no-preference"),
        ([{"response": r, "annotations": ratings(2, 2, 2)} for r in "AB"], "no-preference"),
        ([{"response": r, "annotations": None} for r in "AB"], "no-preference"),
        ([1, 2], "bad-value"),
        ("text", "bad-value"),
        ({"response": "text"}, "no-preference"),
    ],
)
def test_ratings_without_a_preference(tmp_path: Path, completions: Any, reason: str) -> None:
    row = {"image": "a.png", "prompt": QUESTION, "completions": completions}
    dataset = jsonl(tmp_path / "pairs.jsonl", [row, FORMATS["vlfeedback"]])
    assert skips(dataset) == [("pairs.jsonl:1", reason)]


def test_keywords_that_a_row_brings(tmp_path: Path) -> None:
    values: list[Any] = [
        "red mug, plate ,",
        ["red mug", "plate"],
        [{"text": "red mug"}, {"text": "plate"}],
        None,
    ]
    dataset = jsonl(tmp_path / "pairs.jsonl", [{**PLAIN, "keywords": value} for value in values])
    assert [row.keywords for row in samples(dataset)] == [("red mug", "plate")] * 3 + [None]
    odd = jsonl(tmp_path / "odd.jsonl", [{**PLAIN, "keywords": [3]}, PLAIN])
    assert [row.keywords for row in samples(odd)] == [None, None]  # --keywords given is not asked for
