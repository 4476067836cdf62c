"""The page of a dataset: what is on it, that text stays text, and that it runs in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_checks import (
    HOSTILE,
    SCRIPT,
    assert_self_contained,
    load_in_browser,
    make_pair,
    parse,
    write_dataset,
)

from mfpo.errors import UserError
from mfpo.records import Noise
from mfpo.report.browse import run
from mfpo.report.config import BrowseConfig


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Page of a dataset whose every text is an attack."""
    folder = tmp_path_factory.mktemp("hostile")
    texts = {"chosen": f"A mug. {HOSTILE}", "rejected": f"A bowl. {HOSTILE}", "prompt": HOSTILE}
    pairs = [make_pair(**texts, keywords=(SCRIPT, HOSTILE, "mug"), seed=seed) for seed in (1, 2)]
    run(BrowseConfig(str(write_dataset(folder / "data", pairs)), output_file=str(folder / "page.html")))
    return folder / "page.html"


def test_rows_marks_and_steps_are_on_the_page(tmp_path: Path) -> None:
    pairs = [make_pair(seed=1), make_pair(seed=2, noise=Noise(scope="global", seed=2))]
    folder = write_dataset(tmp_path / "data", pairs)
    run(BrowseConfig(str(folder)))
    page = assert_self_contained(folder / "browse.html")
    assert [row["data-scope"] for row in page.named("article", "row")] == ["region", "global"]
    assert len(page.named("mark", "kw")) == 4
    assert len(page.named("mark", "changed")) == 2
    assert len(page.named("img", "mask")) == 2
    assert [a["value"] for a in page.named("input") if a.get("name") == "step-1"] == [
        "0",
        "300",
        "500",
        "700",
        "900",
    ]
    for text in ("What do you see?", "stands on a table", "mug", "not found", "25% of the area", pairs[0].id):
        assert text in page.text


def test_the_number_of_rows_is_limited_and_they_are_spread(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", [make_pair(prompt=f"question {n}", seed=n) for n in range(9)])
    run(BrowseConfig(str(folder), output_file=str(tmp_path / "page.html"), max_rows=3))
    text = parse(tmp_path / "page.html").text
    assert [n for n in range(9) if f"question {n}" in text] == [0, 3, 6]


def test_text_of_the_dataset_is_never_markup(hostile: Path) -> None:
    page = assert_self_contained(hostile)
    assert page.text.count(HOSTILE) >= 4
    assert "49" not in page.text.split()


def test_no_script_of_the_dataset_runs_in_a_browser(hostile: Path, tmp_path: Path) -> None:
    loaded = load_in_browser(hostile, tmp_path)
    assert loaded.console == ""
    assert "<title>data</title>" in loaded.dom
    # The page's own script ran: it marks the document and counts the rows.
    assert 'class="scripted"' in loaded.dom and "2 of 2" in loaded.dom


def test_the_browser_check_sees_errors_and_scripts(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        f"<!doctype html><title>fine</title>{SCRIPT}<script>nothing.here()</script>", encoding="utf-8"
    )
    loaded = load_in_browser(page, tmp_path / "profile")
    assert "nothing is not defined" in loaded.console
    assert "<title>hacked</title>" in loaded.dom


def test_a_folder_without_a_dataset_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no dataset"):
        run(BrowseConfig(str(tmp_path)))
