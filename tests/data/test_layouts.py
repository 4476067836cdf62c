"""Every way of writing rows that has a layout gives the same row; its traps cost at most that row."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from mfpo.data.source_config import SourceConfig
from mfpo.data.sources import Source
from mfpo.errors import Skip, UserError
from mfpo.preferences.config import BuildConfig
from mfpo.records import Sample, assistant_message, text_of, user_message

QUESTION, CHOSEN, REJECTED = "What is it?", "A red mug.", "A blue mug."
IMAGE = {"image": "a.png"}


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": who, "value": what} for who, what in pairs]


def chat(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": who, "content": what} for who, what in pairs]


ASKED = ("human", f"<image>\n{QUESTION}")
LAYOUTS: dict[str, dict[str, Any]] = {
    "povid": {
        **IMAGE,
        "id": "1",
        "conversations": turns(ASKED, ("gpt", CHOSEN)),
        "rejected_conversations": turns(ASKED, ("gpt", REJECTED)),
    },
    "llava-rlhf": {
        **IMAGE,
        "conversations": turns(ASKED, ("gpt", "replaced by the two outputs")),
        "output_1": {"from": "llava", "value": REJECTED},
        "output_2": {"from": "llava", "value": CHOSEN},
        "preference": 2,
    },
    "trl-implicit": {
        "images": ["a.png"],
        "chosen": chat(("user", QUESTION), ("assistant", CHOSEN)),
        "rejected": chat(("user", QUESTION), ("assistant", REJECTED)),
    },
    "swift-messages": {
        "images": ["a.png"],
        "messages": chat(("user", f"<image>{QUESTION}"), ("assistant", CHOSEN)),
        "rejected_messages": chat(("user", f"<image>{QUESTION}"), ("assistant", REJECTED)),
    },
    "swift-query": {
        "images": ["a.png"],
        "query": f"<image>{QUESTION}",
        "response": CHOSEN,
        "rejected_response": REJECTED,
    },
    "openai": {
        "images": ["a.png"],
        "messages": chat(("user", f"<image>{QUESTION}")),
        "chosen": {"role": "assistant", "content": CHOSEN},
        "rejected": {"role": "assistant", "content": REJECTED},
    },
    "trl": {
        "prompt": [
            {
                "role": "user",
                "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": QUESTION}],
            }
        ],
        "chosen": assistant_message(CHOSEN),
        "rejected": assistant_message(REJECTED),
    },
    "ha-dpo": {"image_id": 7, "question": QUESTION, "chosen": CHOSEN, "reject": REJECTED, "correct": False},
}


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(dataset: str | Path, **settings: Any) -> list[Sample | Skip]:
    return list(Source(SourceConfig(dataset=str(dataset), **settings)).items())


def one(dataset: str | Path, **settings: Any) -> Sample:
    (row,) = read(dataset, **settings)
    assert isinstance(row, Sample), row
    return row


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_is_recognised_and_read(tmp_path: Path, name: str) -> None:
    dataset = write(tmp_path / "pairs.jsonl", [LAYOUTS[name]])
    row = one(dataset)
    assert row.prompt == user_message(QUESTION)
    assert (row.chosen, row.rejected) == (assistant_message(CHOSEN), assistant_message(REJECTED))
    assert [Path(str(image.path)).name for image in row.images] == ["7.jpg" if name == "ha-dpo" else "a.png"]
    found = Source(SourceConfig(dataset=dataset)).recogniser().layout(LAYOUTS[name])
    assert found is not None and found.name == name
    assert one(dataset, layout=name) == row


def test_descriptions_of_hadpo_are_an_object_by_image_id(tmp_path: Path) -> None:
    (tmp_path / "VG_100K_2").mkdir()
    (tmp_path / "VG_100K_2/12.jpg").write_bytes(b"")
    rows = {"12": {"chosen": [CHOSEN, "x"], "rejected": [REJECTED]}, "13": {"chosen": [], "rejected": ["y"]}}
    (tmp_path / "desc.json").write_text(json.dumps(rows))
    first, second = read(tmp_path / "desc.json")
    assert isinstance(first, Sample)
    assert first.prompt == user_message("Describe this image in detail.")
    assert (text_of(first.chosen), text_of(first.rejected)) == (CHOSEN, REJECTED)
    assert first.images[0].path == str(tmp_path / "VG_100K_2/12.jpg")
    assert second == Skip("desc.json:item 13", "missing-value", "column chosen is an empty list")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("povid", {"rejected_conversations": turns(("human", "Another?"), ("gpt", "x"))}, "bad-value"),
        ("povid", {"conversations": turns(("gpt", "x"))}, "bad-value"),
        ("llava-rlhf", {"preference": 0}, "no-preference"),
        ("llava-rlhf", {"output_1": None}, "missing-value"),
        ("ha-dpo", {"correct": True}, "no-preference"),
        ("ha-dpo", {"image_id": "../7"}, "bad-value"),
        ("swift-query", {"history": [["only one"]]}, "bad-value"),
        ("swift-query", {"query": f"<image><image>{QUESTION}"}, "image-count"),
        ("swift-messages", {"messages": "text"}, "bad-value"),
        ("openai", {"chosen": {"role": "assistant", "content": "see <image>"}}, "bad-value"),
        ("openai", {"images": []}, "image-count"),
        ("openai", {"chosen": chat(("user", "Another question?"), ("assistant", CHOSEN))}, "bad-value"),
    ],
)
def test_a_row_that_breaks_its_layout(tmp_path: Path, name: str, change: dict[str, Any], reason: str) -> None:
    good = LAYOUTS[name]
    rows = read(write(tmp_path / "pairs.jsonl", [good, {**good, **change}]))
    assert isinstance(rows[0], Sample) and isinstance(rows[1], Skip)
    assert rows[1].reason == reason


def test_several_turns_system_text_and_history_are_kept(tmp_path: Path) -> None:
    row = {
        **LAYOUTS["swift-query"],
        "query": QUESTION,
        "system": "Be brief.",
        "history": [["<image>What room?", "A kitchen."]],
    }
    prompt = one(write(tmp_path / "pairs.jsonl", [row])).prompt
    assert [turn["role"] for turn in prompt] == ["system", "user", "assistant", "user"]
    assert prompt[1]["content"] == [{"type": "image"}, {"type": "text", "text": "What room?"}]


def test_images_in_the_parts_and_in_the_column_keep_their_order(tmp_path: Path) -> None:
    content = [
        {"type": "text", "text": "<image> or"},
        {"type": "image_url", "image_url": {"url": "b.png"}},
        {"type": "text", "text": "?"},
    ]
    row = {
        **LAYOUTS["trl"],
        "prompt": [{"role": "user", "content": content}],
        "images": ["spare.png", "a.png"],
    }
    found = one(write(tmp_path / "pairs.jsonl", [row]))
    assert [Path(str(image.path)).name for image in found.images] == ["spare.png", "a.png", "b.png"]
    assert [part["type"] for part in found.prompt[0]["content"]] == [
        "image",
        "image",
        "text",
        "image",
        "text",
    ]


@pytest.mark.parametrize(
    "column", ["a.png", ["a.png"], {"path": "a.png"}, [{"bytes": "iVBORw0KGgo=", "path": "a.png"}]]
)
@pytest.mark.parametrize("image", ["a.png", {"bytes": "iVBORw0KGgo=", "path": "a.png"}])
def test_a_column_that_repeats_the_images_of_the_messages(tmp_path: Path, column: Any, image: Any) -> None:
    """The row had each picture twice."""
    content = [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]
    row = {**LAYOUTS["trl"], "prompt": [{"role": "user", "content": content}], "images": column}
    found = one(write(tmp_path / "pairs.jsonl", [row]))
    assert [Path(str(source.path)).name for source in found.images] == ["a.png"]
    assert found.prompt == user_message(QUESTION)


@pytest.mark.parametrize("column", [["b.png"], ["a.png", "a.png"], ["b.png", "a.png"]])
def test_a_column_of_other_images_than_the_messages_bring(tmp_path: Path, column: list[str]) -> None:
    rows = [LAYOUTS["trl"], {**LAYOUTS["trl"], "images": column}]
    _, found = read(write(tmp_path / "pairs.jsonl", rows))
    assert isinstance(found, Skip) and found.reason == "image-count"
    assert f"the messages bring 1 image along, and the column of images names {len(column)}" in found.detail


@pytest.mark.parametrize("odd", [7, {"a": 1}, [3], [None], {"text": ["x"]}])
def test_odd_keywords_cost_the_row_only_where_they_are_used(tmp_path: Path, odd: Any) -> None:
    rows = [{**LAYOUTS["swift-query"], "keywords": value} for value in (["mug"], odd)]
    dataset = write(tmp_path / "pairs.jsonl", rows)
    found = read(dataset)
    assert [row.keywords for row in found if isinstance(row, Sample)] == [("mug",), None]
    _, found_given = Source(BuildConfig(dataset=str(dataset), keywords="given")).items()
    assert isinstance(found_given, Skip) and found_given.reason == "bad-value"


@pytest.mark.parametrize("value", ["https://example.org/a.png", 7])
def test_what_is_wrong_with_rejected_images_names_their_column(tmp_path: Path, value: Any) -> None:
    rows = [LAYOUTS["swift-query"], {**LAYOUTS["swift-query"], "rejected_images": [value]}]
    _, found = read(write(tmp_path / "pairs.jsonl", rows))
    assert isinstance(found, Skip)
    assert found.detail.endswith("(in column rejected_images, the pictures for --noise_scope swap)")


def test_base64_images(tmp_path: Path) -> None:
    data = b"\x89PNG\r\n\x1a\n" + bytes(60)
    text = base64.b64encode(data).decode()
    plain = {"question": QUESTION, "chosen": CHOSEN, "rejected": REJECTED}
    values: list[Any] = [text, f"data:image/png;base64,{text}", {"bytes": text, "path": "x.png"}, [text]]
    rows = read(write(tmp_path / "pairs.jsonl", [{**plain, "image": value} for value in values]))
    assert [row.images[0].data for row in rows if isinstance(row, Sample)] == [data] * 4
    broken = ["data:image/png,raw", f"data:image/png;base64,{text}!", {"bytes": "!!!"}, text[:-1]]
    rows = read(write(tmp_path / "bad.jsonl", [{**plain, "image": v} for v in [text, *broken]]))
    assert [row.reason for row in rows if isinstance(row, Skip)] == ["bad-base64"] * 4


def test_base64_may_hold_blanks_and_many_of_them_take_no_time(tmp_path: Path) -> None:
    """The search for what is not base64 once took the square of their number."""
    data = b"\x89PNG\r\n\x1a\n" + bytes(60)
    plain = {"question": QUESTION, "chosen": CHOSEN, "rejected": REJECTED}
    text = base64.encodebytes(data).decode()
    values = [f"data:image/png;base64,{text}", "data:image/png;base64,A" + " " * 2**20 + "!"]
    good, bad = read(write(tmp_path / "pairs.jsonl", [{**plain, "image": value} for value in values]))
    assert isinstance(good, Sample) and good.images[0].data == data
    assert isinstance(bad, Skip) and bad.reason == "bad-base64"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_break_that_sets_a_placeholder_apart_is_dropped(tmp_path: Path, end: str) -> None:
    row = {**LAYOUTS["swift-query"], "query": f"<image>{end}{QUESTION}"}
    assert one(write(tmp_path / "pairs.jsonl", [row])).prompt == user_message(QUESTION)


def test_a_users_own_names(tmp_path: Path) -> None:
    row = {"img": "a.png", "prompt": QUESTION, "win": CHOSEN, "lose": REJECTED, "question": "unused", "n": 3}
    dataset = write(tmp_path / "pairs.jsonl", [row])
    names = {"question": "prompt", "chosen": "win", "rejected": "lose", "image": "img"}
    found = one(dataset, columns=names)
    assert (found.prompt, found.chosen) == (user_message(QUESTION), assistant_message(CHOSEN))
    assert found.extra == {"n": 3}
    with pytest.raises(UserError, match=r"--columns chosne.*\n.*did you mean 'chosen'"):
        read(dataset, columns={"chosne": "win"})
    with pytest.raises(UserError, match="win is given twice"):
        read(dataset, columns={"chosen": "win", "rejected": "win"})
    with pytest.raises(UserError, match=r"renamed by --columns"):
        read(dataset, columns={"chosen": "winn"})


def test_names_from_llama_factorys_table(tmp_path: Path) -> None:
    row = {"chat": [{"who": "u", "says": f"<image>{QUESTION}"}], "good": {"who": "a", "says": CHOSEN}}
    row |= {"bad": {"who": "a", "says": REJECTED}, "pics": ["a.png"]}
    (tmp_path / "pairs.json").write_text(json.dumps([row]))
    entry = {
        "file_name": "pairs.json",
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"messages": "chat", "chosen": "good", "rejected": "bad", "images": "pics"},
        "tags": {"role_tag": "who", "content_tag": "says", "user_tag": "u", "assistant_tag": "a"},
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": entry}))
    found = one(tmp_path / "pairs.json")
    assert found.prompt == user_message(QUESTION) and found.rejected == assistant_message(REJECTED)
    for broken in (
        "[1, 2",
        "[]",
        json.dumps({"mine": {"file_name": "pairs.json", "columns": 3, "tags": []}}),
    ):
        (tmp_path / "dataset_info.json").write_text(broken)
        with pytest.raises(UserError, match="fit no known layout"):
            read(tmp_path / "pairs.json")


def test_columns_that_fit_several_layouts(tmp_path: Path) -> None:
    row = {**IMAGE, "question": QUESTION, "prompt": "Other?", "chosen": CHOSEN, "rejected": REJECTED}
    dataset = write(tmp_path / "pairs.jsonl", [row])
    with pytest.raises(
        UserError, match=r"fit several layouts: trl .*plain.*\n.*--layout trl or --layout plain"
    ):
        read(dataset)
    assert one(dataset, layout="plain").prompt == user_message(QUESTION)
    assert one(dataset, layout="trl").prompt == user_message("Other?")
    with pytest.raises(UserError, match=r"there is no layout 'plane'.*\n.*'plain'"):
        read(dataset, layout="plane")


def test_an_odd_row_does_not_make_a_source_ambiguous(tmp_path: Path) -> None:
    row = {**IMAGE, "question": QUESTION, "chosen": CHOSEN, "rejected": REJECTED}
    rows = read(write(tmp_path / "pairs.jsonl", [row, {**row, "prompt": "Other?"}]))
    assert [row.prompt for row in rows if isinstance(row, Sample)] == [user_message(QUESTION)] * 2


def test_half_of_a_layouts_columns_may_be_chance(tmp_path: Path) -> None:
    row = {"img": "a.png", "prompt": "q", "win": "c", "lose": "r"}
    with pytest.raises(UserError, match="nearest is plain, missing chosen, question, rejected, image"):
        read(write(tmp_path / "pairs.jsonl", [row]))


def test_an_unknown_layout_names_the_nearest_and_the_flag(tmp_path: Path) -> None:
    row = {"img": "a.png", "question": "q", "choosen": "c", "rejected": "r"}
    with pytest.raises(UserError) as caught:
        read(write(tmp_path / "pairs.jsonl", [row]))
    text = str(caught.value)
    assert "nearest is plain, missing chosen, image" in text
    assert "--columns chosen=choosen image=img" in text
    with pytest.raises(UserError) as caught:
        read(write(tmp_path / "other.jsonl", [{"img": "a.png", "win": "c", "lose": "r"}]))
    text = str(caught.value)
    assert "nearest is plain" in text, "a layout that shares no column is no better than the common one"
    assert "--columns chosen=YOURS question=YOURS rejected=YOURS image=img. " in text
