"""The items of a report in a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from page_checks import HOSTILE, assert_self_contained
from PIL import Image

from chromium import Browser
from mfpo.evaluation.results import ScoreResult, score_result
from mfpo.evaluation.statistics import Metric
from mfpo.report.report import write_report

ATTACK = (
    "</script><script>window.__pwned=1;alert(1)</script><!--<script>\u2028<img src=x onerror=alert(2)>"
    + HOSTILE
)


def chair(folder: Path, answers: list[str]) -> ScoreResult:
    """Captions in which every `cat` is absent."""
    records = [
        {
            "id": str(place),
            "image": f"{place}.jpg",
            "question": "Describe.",
            "answer": answer,
            "absent_spans": [[i, i + 3] for i in range(len(answer)) if answer.startswith("cat", i)],
            "n": 1,
        }
        for place, answer in enumerate(answers)
    ]
    return score_result("chair", records, {"n": Metric("n", "n")}, {"data_dir": str(folder)})


def pope(wrong: set[int], count: int = 9000) -> ScoreResult:
    """Yes/no questions of two kinds; those in ``wrong`` are answered wrongly."""
    records: list[dict[str, Any]] = [
        {
            "id": f"{'random' if place % 2 else 'popular'}/{place}",
            "kind": "random" if place % 2 else "popular",
            "image": f"{place // 6}.jpg",
            "question": f"Is there thing {place}?",
            "answer": "Yes.",
            "right": int(place not in wrong),
            "said_yes": 1,
            "label": "no" if place in wrong else "yes",
        }
        for place in range(count)
    ]
    return score_result("pope", records, {"right": Metric("right", "said_yes")}, {})


def judged(replies: list[str]) -> ScoreResult:
    records = [
        {
            "id": str(p),
            "kind": "attribute",
            "question": "?",
            "answer": "Red.",
            "reply": r,
            "rated": 1,
            "rating": p,
        }
        for p, r in enumerate(replies)
    ]
    return score_result("mmhal", records, {"score": Metric("rating", "rated", scale=1)}, {})


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("items")
    Image.new("RGB", (400, 300), "teal").save(folder / "1.jpg")
    scores = {
        "base": [
            chair(folder, ["mug", "cat cat cat", f"cat {ATTACK}"]),
            pope({5, 6, 7}),
            judged([ATTACK, "fair"]),
        ],
        f"tuned {HOSTILE}": [
            chair(folder, ["cat cat", "mug", "mug"]),
            pope({7, 8}),
            judged(["bad", "good"]),
        ],
    }
    folders = []
    for place, (_, results) in enumerate(scores.items()):
        for result in results:
            result.save(folder / str(place) / "scores" / f"{result.name}.json")
        folders.append(folder / str(place))
    return write_report(folder / "report.html", folders, labels=list(scores))


@pytest.fixture
def opened(page: Path, tab: Browser) -> Browser:
    tab.open(page)
    tab.wait("document.querySelector('#item-list .answer')")
    return tab


def choose(tab: Browser, name: str, value: str) -> None:
    field = f"document.getElementById('item-filters').elements.{name}"
    tab.run(
        f"void ({field}.value = {json.dumps(value)},"
        f" {field}.dispatchEvent(new Event('input', {{bubbles: true}})))"
    )


def ids(tab: Browser) -> list[str]:
    """Of the items on the page, in their order."""
    found: list[str] = tab.run(
        "[...document.querySelectorAll('#item-list .picture .tally')].map(p => p.textContent.split(' · ')[0])"
    )
    return found


def text(tab: Browser, selector: str) -> str:
    return str(tab.run(f"document.querySelector({json.dumps(selector)}).textContent"))


def benchmark(tab: Browser, name: str) -> None:
    options: list[str] = tab.run(
        "[...document.querySelectorAll('[name=benchmark] option')].map(o => o.textContent)"
    )
    choose(
        tab, "benchmark", next(str(place) for place, label in enumerate(options) if label.startswith(name))
    )


def test_hostile_answers_run_nothing(page: Path, opened: Browser) -> None:
    assert_self_contained(page)
    assert ATTACK in text(opened, "#item-list")
    benchmark(opened, "mmhal")
    assert ATTACK in text(opened, "#item-list .reply")
    assert (opened.console, opened.dialogs, opened.requests) == ([], [], [page.as_uri()])
    assert opened.run("window.__pwned === undefined && document.title.startsWith('Modality')")
    assert opened.run("document.querySelectorAll('#item-list script, #item-list [onerror]').length") == 0


def test_a_caption_says_everything_once(opened: Browser) -> None:
    cases = [
        ("test-0-000008/describe", "describe", "test-0-000008.png", "test-0-000008/describe"),
        ("7.jpg", "", "7.jpg", "7.jpg"),
        ("popular/3", "popular", "COCO_3.jpg", "popular/3 · COCO_3.jpg"),
        ("12", "attribute", "a.b.jpg", "12 · attribute · a.b.jpg"),
        ("12", "", "", "12"),
    ]
    for identifier, kind, image, caption in cases:
        item = json.dumps({"id": identifier, "kind": kind, "image": image})
        assert opened.run(f"mfpo.captionOf({item})") == caption


def test_the_worst_items_come_first_with_their_pictures_and_marks(opened: Browser) -> None:
    assert ids(opened) == ["1", "0", "2"]
    opened.wait("document.querySelector('#item-list img').naturalWidth === 320")
    placeholders = "[...document.querySelectorAll('.no-picture')].map(e => e.textContent)"
    assert opened.run(placeholders) == ["no picture: not found"] * 2
    marks = "document.querySelectorAll('#item-list .answer:first-child mark')"
    assert opened.run(f"[...{marks}].map(m => [m.textContent, m.className])") == [["cat", "absent"]] * 3


def test_items_can_be_ordered_by_one_run(opened: Browser) -> None:
    choose(opened, "order", "1")
    assert ids(opened) == ["0", "1", "2"]
    choose(opened, "order", "0")
    assert ids(opened) == ["1", "2", "0"]
    choose(opened, "order", "")
    assert ids(opened) == ["1", "0", "2"]


def test_thousands_of_items_are_shown_a_page_at_a_time(opened: Browser) -> None:
    benchmark(opened, "pope")
    # Wrong in both runs, then in one of them, then the others in their order.
    assert ids(opened)[:6] == ["random/7", "random/5", "popular/6", "popular/8", "popular/0", "random/1"]
    assert opened.run("document.querySelectorAll('#item-list .answer').length") == 10
    assert text(opened, "#item-place") == "1 to 10 of 9,000"
    assert opened.run("document.getElementById('item-previous').disabled")
    opened.run("document.getElementById('item-next').click()")
    assert text(opened, "#item-place") == "11 to 20 of 9,000"
    assert "60 worst items only" in text(opened, "#item-note")


def test_items_are_filtered_by_type_outcome_and_words(opened: Browser) -> None:
    benchmark(opened, "pope")
    choose(opened, "kind", "random")
    assert text(opened, "#item-place") == "1 to 10 of 4,500"
    choose(opened, "outcome", "any")
    assert ids(opened) == ["random/7", "random/5"]
    choose(opened, "outcome", "some")
    assert ids(opened) == ["random/5"]
    choose(opened, "outcome", "all")
    assert ids(opened) == ["random/7"]
    choose(opened, "outcome", "")
    choose(opened, "q", "THING 4321?")
    assert ids(opened) == ["random/4321"]
    choose(opened, "q", "no such words")
    assert opened.run("!document.getElementById('item-nothing').hidden")
    assert text(opened, "#item-place") == ""


def test_types_of_one_benchmark_do_not_filter_the_next(opened: Browser) -> None:
    benchmark(opened, "pope")
    choose(opened, "kind", "random")
    benchmark(opened, "chair")
    assert len(ids(opened)) == 3
    assert opened.run("document.querySelector('[name=kind]').offsetParent === null")


@pytest.mark.parametrize("width", [420, 1400])
def test_nothing_is_wider_than_the_window(opened: Browser, width: int) -> None:
    opened.size(width, 900)
    for name in ("chair", "pope", "mmhal"):
        benchmark(opened, name)
        assert opened.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
