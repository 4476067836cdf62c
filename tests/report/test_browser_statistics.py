"""Statistics of a dataset, counted by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_checks import make_pair, write_dataset

from mfpo.data.folder import open_dataset
from mfpo.data.writer import DatasetWriter
from mfpo.errors import Skip
from mfpo.records import Noise, RegionStatus
from mfpo.report.browser.charts import Chart, Histogram, counted, even_edges, median_of, rates
from mfpo.report.browser.reference import Reference
from mfpo.report.browser.rows import Rank
from mfpo.report.browser.statistics import Statistics, collect, difficulty_charts, skipped_chart
from mfpo.report.browser.words import fallback_reason


def texts(charts: list[Chart], title: str) -> dict[str, str]:
    (chart,) = (chart for chart in charts if chart.title == title)
    return {bar.label: bar.text for bar in chart.bars}


def test_a_dataset_is_counted(tmp_path: Path) -> None:
    missing = (RegionStatus("mug", "not-found"), RegionStatus("table", "too-small", 0.0004, 0.5))
    pairs = [
        make_pair(seed=1),
        make_pair("A mug.", "A cup of tea.", keywords=("mug",), seed=2, noise=Noise(step=700)),
        replace(make_pair(seed=3, noise=Noise("global")), regions=(), region_status=missing),
        make_pair(keywords=(), seed=4, noise=Noise("global")),
        make_pair(seed=5, noise=Noise("crop")),
    ]
    statistics = collect(open_dataset(write_dataset(tmp_path / "data", pairs)), "region")
    charts = statistics.charts()
    assert dict(statistics.facts()) == {
        "rows": "5",
        "keywords per row": "1.4",
        "keywords found": "43%",
        "rows without a region": "2",
        "noise": "vcd, step 500 (mostly)",
    }
    assert texts(charts, "Keywords per row") == {"0": "1 (20%)", "1": "1 (20%)", "2": "3 (60%)"}
    assert texts(charts, "Outcome of the search") == {
        "found": "3 (43%)",
        "not found": "3 (43%)",
        "too small": "1 (14%)",
        "too large": "0",
    }
    assert texts(charts, "Most frequent keywords") == {"mug": "3 of 4 (75%)", "table": "0 of 3 (0.0%)"}
    # The one region covers 32 x 48 of 64 x 96 pixels.
    assert texts(charts, "Area of the regions")["20–30%"] == "3 (60%)"
    assert texts(charts, "Area of the regions")["none"] == "2 (40%)"
    assert texts(charts, "Fallbacks to global noise") == {
        "all regions are too small": "1 (20%)",
        "the answer has no keywords": "1 (20%)",
    }
    assert texts(charts, "Scope of the noise") == {
        "global": "2 (40%)",
        "region": "2 (40%)",
        "crop": "1 (20%)",
    }
    assert texts(charts, "Noise settings") == {"vcd, step 500": "3 (75%)", "vcd, step 700": "1 (25%)"}
    assert texts(charts, "Words in the chosen answer") == {"<5": "1 (20%)", "5–9": "4 (80%)"}


def test_global_noise_that_was_asked_for_is_no_fallback() -> None:
    statistics = Statistics("global")
    statistics.add(replace(make_pair(noise=Noise("global")), regions=()))
    assert not statistics.fallbacks


def test_rows_of_older_datasets_count_by_their_regions() -> None:
    statistics = Statistics()
    statistics.add(replace(make_pair(), region_status=()))
    assert (statistics.found, statistics.keywords) == (1, 2)


def test_damaged_run_lengths_do_not_stop_the_count() -> None:
    pair = make_pair()
    statistics = Statistics()
    statistics.add(replace(pair, regions=(replace(pair.regions[0], rle="~~"),)))
    assert statistics.rows == 1


def test_rows_left_out_are_counted_by_reason(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "data") as writer:
        writer.write(make_pair())
        for reason in ("missing-image", "duplicate", "missing-image"):
            writer.skip(Skip("rows.jsonl:1", reason))
    chart = skipped_chart(tmp_path / "data")
    assert chart is not None
    assert [(bar.label, bar.text) for bar in chart.bars] == [
        ("missing-image", "2 (67%)"),
        ("duplicate", "1 (33%)"),
    ]
    assert skipped_chart(tmp_path) is None


def test_difficulty_counts_rows_of_the_dataset_only() -> None:
    ranks = {"a": Rank(1.0, "easy"), "b": Rank(11.0, "hard"), "gone": Rank(99.0, "hard")}
    level, entropy = difficulty_charts(Reference("f", "paper", ranks), ["a", "b", "not ranked"])
    assert [(bar.label, bar.text) for bar in level.bars] == [
        ("easy", "1 (50%)"),
        ("medium", "0"),
        ("hard", "1 (50%)"),
    ]
    assert (entropy.bars[0].label, entropy.bars[-1].label) == ("1 to 2", "10 to 11")
    assert difficulty_charts(Reference(), ["a"]) == []


def test_equal_entropies_fill_one_bar() -> None:
    ranks = {"a": Rank(2.0, "easy"), "b": Rank(2.0, "hard")}
    _, entropy = difficulty_charts(Reference("f", "paper", ranks), ["a", "b"])
    assert [bar.text for bar in entropy.bars] == ["2 (100%)"]


def test_bars_are_as_long_as_their_counts() -> None:
    bars = rates("", "", [("a", 1, 4), ("b", 2, 2), ("c", 0, 0)]).bars
    assert [(bar.length, bar.solid, bar.text) for bar in bars] == [
        (1, 0.25, "1 of 4 (25%)"),
        (0.5, 1, "2 of 2 (100%)"),
    ]
    assert [bar.length for bar in counted("", "", [("a", 3), ("b", 6)]).bars] == [0.5, 1]


def test_a_number_on_an_edge_counts_above_it() -> None:
    histogram = Histogram((1, 2), ("low", "middle", "high"))
    for number in (0.5, 1, 1.5, 2):
        histogram.add(number)
    assert histogram.items() == [("low", 1), ("middle", 2), ("high", 1)]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_the_median_is_that_of_the_sorted_numbers(numbers: list[int]) -> None:
    ordered = sorted(numbers)
    expected = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    assert median_of(Counter(numbers)) == expected


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_every_number_of_a_range_has_a_bin(low: float, width: float) -> None:
    edges, labels = even_edges(low, low + width, 10)
    assert (len(edges), len(labels)) == (9, 10)
    assert edges == sorted(edges)


def test_long_labels_keep_both_ends() -> None:
    (bar,) = counted("", "", [("a very long keyword that goes on and on", 1)]).bars
    assert bar.short_label == "a very long keyword … and on"


def test_shares_below_a_thousandth_are_not_rounded_to_nothing() -> None:
    chart = counted("", "", [("a", 1), ("b", 99_999)])
    assert chart.bars[0].text == "1 (<0.1%)"


@pytest.mark.parametrize(
    ("outcomes", "reason"),
    [
        (["not-found", "found"], ""),
        (["not-found"], "no keyword was found in the picture"),
        (["not-found", "too-large"], "all regions are too large"),
        (["too-small", "too-large"], "all regions are too small or too large"),
    ],
)
def test_reasons_of_a_fallback(outcomes: list[str], reason: str) -> None:
    assert fallback_reason([RegionStatus("k", outcome) for outcome in outcomes]) == reason  # type: ignore[arg-type]
