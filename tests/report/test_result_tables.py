"""Tables of a report: how they were scored, what differs between modes, and what cannot be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from page_checks import assert_self_contained

from mfpo.evaluation.results import ScoreResult, score_result
from mfpo.evaluation.statistics import Metric
from mfpo.report.report import write_report
from mfpo.report.runs import load_runs
from mfpo.report.scoring import ModeRow, scoring
from mfpo.report.tables import compare_all, result_tables


def scored(name: str = "amber", ids: range = range(40), value: int = 1, **settings: Any) -> ScoreResult:
    records = [{"id": str(place), "n": 1, "good": value if place % 2 else 0} for place in ids]
    metrics = {
        "Cover": Metric("good", "n", better="higher", text="what is covered"),
        "share": Metric("good", "n", scale=1),
    }
    return score_result(name, records, metrics, settings)


def save(folder: Path, *results: ScoreResult, stem: str = "") -> Path:
    for result in results:
        result.save(folder / "scores" / f"{stem or result.name}.json")
    return folder


def test_settings_of_the_scoring_are_laid_side_by_side() -> None:
    one = scored(
        mode="official",
        similarity={"source": "exact"},
        num_samples=None,
        tools={"tagger": "perceptron"},
        judge={"model": "gpt-4", "spread": {"score": 1.0}},
        data_dir="/a",
    )
    other = scored(
        mode="official", similarity={"source": "glove"}, tools={"tagger": "perceptron"}, data_dir="/b"
    )
    found = scoring([("one", one), ("other", other)])
    assert found.settings == {
        "mode": ("official", "official"),
        "similarity.source": ("exact", "glove"),
        "tools.tagger": ("perceptron", "perceptron"),
        "judge.model": ("gpt-4", ""),
    }
    assert found.clash == ("similarity.source", "judge.model")


def test_caveats_name_the_runs_that_they_are_about() -> None:
    both, one = "no output of the official script was at hand", "NLTK's data is missing"
    first, second = scored(unverified=[both, one]), scored(unverified=[both])
    assert scoring([("a", first), ("b", second)]).caveats == (f"unverified: {both}", f"a: unverified: {one}")


def test_metrics_that_the_modes_tell_apart_are_shown_for_every_run() -> None:
    first = scored(modes={"official": {"CHAIR": 1.0, "Hal": 2.0}, "strict": {"CHAIR": 1.5, "Hal": 2.0}})
    second = scored(modes={"official": {"CHAIR": 3.0, "Hal": 2.0}, "strict": {"CHAIR": 3.0, "Hal": None}})
    assert scoring([("a", first), ("b", second)]).modes == (
        ModeRow("CHAIR", (("1.00", "1.50"), ("3.00", "3.00"))),
        ModeRow("Hal", (("2.00", "2.00"), ("2.00", "–"))),
    )


def test_benchmarks_stand_in_their_order_and_others_before_them(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", *(scored(name) for name in ("distortion", "pope", "own", "amber")))
    assert [c.benchmark for c in compare_all(load_runs([folder]))] == ["own", "amber", "pope", "distortion"]


def test_runs_without_a_common_item_stand_apart(tmp_path: Path) -> None:
    folders = [
        save(tmp_path / "a", scored()),
        save(tmp_path / "b", scored(ids=range(100, 140))),
        save(tmp_path / "c", scored(value=3)),
    ]
    found = load_runs(folders)
    (table,) = result_tables(compare_all(found), found)
    assert table.apart == ("b",) and table.num_items == 40
    assert [cell.value for cell in table.rows[0].cells] == ["50.0", "–", "150.0"]


def test_shares_have_two_decimals_and_small_differences_are_not_rounded_away(tmp_path: Path) -> None:
    first, second = scored(ids=range(2500)), scored(ids=range(2500))
    second.items[0]["good"] = 1
    found = load_runs([save(tmp_path / "a", first), save(tmp_path / "b", second)])
    (table,) = result_tables(compare_all(found), found)
    # One of 2,500 items more.
    assert [cell.change for cell in table.rows[0].cells] == ["", "+0.04"]
    assert [cell.value for cell in table.more[0].cells] == ["0.50", "0.50"]
    assert table.more[0].cells[1].change == "+0.0004"


def test_metrics_that_only_the_official_script_prints_have_no_interval(tmp_path: Path) -> None:
    first, second = scored("pope"), scored("pope")
    first.metrics["mean_F1"] = 71.24
    found = load_runs([save(tmp_path / "a", first), save(tmp_path / "b", second)])
    (table,) = result_tables(compare_all(found), found)
    assert table.rows[-1].name == "mean_F1"
    assert [(cell.value, cell.interval) for cell in table.rows[-1].cells] == [("71.2", ""), ("–", "")]


def test_small_sets_say_what_they_cannot_show(tmp_path: Path) -> None:
    second = scored()
    second.items[0]["good"] = 1
    found = load_runs([save(tmp_path / "a", scored()), save(tmp_path / "b", second)])
    (table,) = result_tables(compare_all(found), found)
    assert table.power.startswith("With only 40 independent items, ") and "share" not in table.power
    large = load_runs(
        [save(tmp_path / "c", scored(ids=range(600))), save(tmp_path / "d", scored(ids=range(600)))]
    )
    assert result_tables(compare_all(large), large)[0].power == ""


def test_several_score_files_of_a_benchmark_are_all_there(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", scored(mode="official"))
    save(folder, scored(mode="strict"), stem="amber-strict")
    (run,) = load_runs([folder])
    assert {name: result.settings["mode"] for name, result in run.scores.items()} == {
        "amber": "official",
        "amber-strict": "strict",
    }


def test_the_page_says_how_it_was_scored(tmp_path: Path) -> None:
    modes = {"official": {"Cover": 1.0}, "strict": {"Cover": 4.25}}
    folders = [
        save(tmp_path / "a", scored(modes=modes, unverified=["yes/no"], similarity={"source": "exact"})),
        save(tmp_path / "b", scored(modes=modes, unverified=["yes/no"], similarity={"source": "glove"})),
    ]
    page = assert_self_contained(write_report(tmp_path / "r.html", folders))
    for words in (
        "unverified: yes/no",
        "a: synonyms: exact",
        "Scored in different ways (similarity.source)",
        "1 metrics differ",
        "4.25",
    ):
        assert words in page.text
