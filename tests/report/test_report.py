"""The report over run folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from page_checks import HOSTILE, assert_self_contained, make_pair, parse, write_dataset

from chromium import Browser
from mfpo.errors import UserError
from mfpo.evaluation.results import ScoreResult, score_result
from mfpo.evaluation.statistics import Metric
from mfpo.report.config import ReportConfig
from mfpo.report.report import run, write_report
from mfpo.report.runs import load_runs, settings_table
from mfpo.report.tables import compare_all, result_tables

METRICS = {
    "CHAIR_i": Metric("absent", "mentions", better="lower", text="absent among mentions"),
    "Cover": Metric("named", "present", better="higher", text="named among present"),
}


def described(answers: list[str], absent: str = "cat") -> ScoreResult:
    """Scores of made-up descriptions in which one word is of an absent object."""
    records: list[dict[str, Any]] = []
    for number, answer in enumerate(answers):
        at = answer.find(absent)
        records.append(
            {
                "id": f"item-{number}",
                "question": "What is there?",
                "answer": answer,
                "absent": int(at >= 0),
                "mentions": 2,
                "named": 1,
                "present": 2,
                "absent_spans": [[at, at + len(absent)]] if at >= 0 else [],
                "present_spans": [[0, 3]],
            }
        )
    return score_result("made-up", records, METRICS, {})


def make_run(folder: Path, result: ScoreResult | None = None, *, stages: str = "", **settings: Any) -> Path:
    folder.mkdir(parents=True)
    if result is not None:
        result.save(folder / "scores" / f"{result.name}.json")
    if stages:
        config = {"objective": "mfpo", "stages": stages, "output_dir": str(folder), **settings}
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        lines = [
            {
                "step": s,
                "stage": 1.0 + s // 3,
                "loss": 1.5,
                "loss/text": 0.7,
                "rewards/margins": 0.1 * s,
                "rewards/chosen": 0.1,
            }
            for s in range(1, 9)
        ]
        (folder / "metrics.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
        )
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    before = described(["mug and cat"] * 20 + ["mug and plate"] * 5)
    after = described(["mug and plate"] * 24 + ["mug and cat"])
    return [
        make_run(tmp_path / "sft", before),
        make_run(tmp_path / "mfpo", after, stages="easy_to_hard", beta=0.1, model_name_or_path="base"),
    ]


def test_every_section_is_there(runs: list[Path], tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", [make_pair()])
    path = write_report(
        tmp_path / "r.html",
        runs,
        title="A study",
        dataset=dataset,
        notes=["First note."],
        reproduce=["make it"],
    )
    page = assert_self_contained(path)
    sections = [a["id"] for a in page.named("section")]
    assert sections == ["results", "tradeoff", "rewards", "losses", "items", "rows", "settings"]
    for text in ("A study", "First note.", "make it", "easy", "hard", "CHAIRᵢ", "mfpo train --config"):
        assert text in page.text
    assert len(page.named("article", "row")) == 1
    assert "as the model gets it, cropped: the middle 67% of the width" in page.text
    assert {link["href"].lstrip("#") for link in page.named("a")} == set(sections)


def recorded_gallery(folder: Path, dataset: Path, model: Path) -> Any:
    """Page of a run whose settings name that dataset and that model."""
    settings = {"dataset": str(dataset), "model_name_or_path": str(model)}
    run = make_run(folder / f"{dataset.name}-{model.name}", stages="random", **settings)
    return parse(write_report(folder / "r.html", [run]))


def test_a_recorded_folder_that_cannot_be_opened_costs_the_rows_only(tmp_path: Path) -> None:
    """The whole report was refused."""
    (tmp_path / "broken").mkdir()
    dataset = write_dataset(tmp_path / "data", [make_pair()])
    page = recorded_gallery(tmp_path, tmp_path / "broken", tmp_path / "gone")
    assert not page.named("article", "row")
    assert "Preference rows are not shown: the dataset that a run's settings name" in page.text
    page = recorded_gallery(tmp_path, dataset, tmp_path / "broken")
    assert not page.named("article", "row")
    assert "Preference rows are not shown: the model that a run's settings name" in page.text
    assert str(tmp_path / "broken") in page.text and "--model_name_or_path names another one" in page.text
    page = recorded_gallery(tmp_path, dataset, tmp_path / "gone")
    assert len(page.named("article", "row")) == 1 and "not shown" not in page.text


def test_a_folder_that_was_given_must_open(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    dataset = write_dataset(tmp_path / "data", [make_pair()])
    for settings in (
        {"dataset": tmp_path / "broken"},
        {"dataset": dataset, "model_name_or_path": str(tmp_path / "broken")},
    ):
        with pytest.raises(UserError):
            write_report(tmp_path / "r.html", runs, **settings)  # type: ignore[arg-type]


def test_differences_are_judged_by_the_metrics_direction(runs: list[Path]) -> None:
    found = load_runs(runs)
    (table,) = result_tables(compare_all(found), found)
    chair, cover = table.rows
    # 20 of 50 mentions against 1 of 50.
    assert [cell.value for cell in chair.cells] == ["40.0", "2.0"]
    assert chair.cells[1].change == "−38.0***" and chair.cells[1].verdict == "better"
    assert chair.cells[0].change == "" and "p = " in chair.cells[1].title
    assert cover.cells[1].change == "+0.0" and cover.cells[1].verdict == ""


def test_a_run_without_a_benchmark_has_an_empty_cell(runs: list[Path], tmp_path: Path) -> None:
    found = load_runs([*runs, make_run(tmp_path / "empty")])
    (table,) = result_tables(compare_all(found), found)
    assert [row.cells[2].value for row in table.rows] == ["–", "–"]


def test_runs_without_a_point_are_named_with_the_reason(runs: list[Path], tmp_path: Path) -> None:
    silent = described(["nothing"] * 25)
    for item in silent.items:
        item |= {"mentions": 0, "named": 0}
    elsewhere = described(["mug and cat"] * 3)
    for item in elsewhere.items:
        item["id"] = f"other-{item['id']}"
    others = [
        make_run(tmp_path / "silent", silent),
        make_run(tmp_path / "elsewhere", elsewhere),
        make_run(tmp_path / "unscored"),
    ]
    page = parse(write_report(tmp_path / "r.html", [others[0], runs[0], *others[1:]]))
    assert (
        "made-up: each run with its 95% intervals. Not shown: silent, whose answers name no object, so that "
        "CHAIRᵢ is not defined; elsewhere, which shares no item with the others; "
        "unscored, which is not scored on it." in page.text
    )
    assert "Not shown" not in parse(write_report(tmp_path / "r.html", runs)).text


def test_missing_pieces_are_left_out(tmp_path: Path) -> None:
    page = assert_self_contained(write_report(tmp_path / "r.html", [make_run(tmp_path / "bare")]))
    assert [a["id"] for a in page.named("section")] == ["settings"]


def test_settings_that_differ_are_told_from_those_that_do_not(tmp_path: Path) -> None:
    found = load_runs(
        [
            make_run(tmp_path / "sft"),
            make_run(tmp_path / "a", stages="none", learning_rate=1e-4, beta=0.1),
            make_run(tmp_path / "b", stages="none", learning_rate=5e-5, beta=0.1, eta=None),
        ]
    )
    different, shared = settings_table(found)
    assert different == {"learning_rate": ["", "0.0001", "5e-05"]}
    assert shared == {"objective": "mfpo", "stages": "none", "beta": "0.1"}


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / seed / "mfpo") for seed in ("seed0", "seed1")]
    assert [one.label for one in load_runs(folders)] == ["seed0/mfpo", "seed1/mfpo"]
    deep = [make_run(tmp_path / seed / "table1" / "mfpo" / "lora" / "final") for seed in ("one", "two")]
    assert [one.label for one in load_runs(deep)] == [
        "one/table1/mfpo/lora/final", "two/table1/mfpo/lora/final",
    ]  # fmt: skip


def test_hostile_texts_stay_text_in_a_browser(tmp_path: Path, tab: Browser) -> None:
    result = described([f"mug and cat {HOSTILE}"] * 3)
    folders = [
        make_run(tmp_path / "a", result),
        make_run(tmp_path / "b", result, stages="none", note=HOSTILE),
    ]
    path = write_report(
        tmp_path / "r.html",
        folders,
        title=f"T {HOSTILE}",
        labels=[HOSTILE, "b"],
        notes=[HOSTILE],
        reproduce=[HOSTILE],
    )
    page = assert_self_contained(path)
    assert page.text.count(HOSTILE) >= 8
    tab.open(path)
    assert (tab.console, tab.dialogs, tab.requests) == ([], [], [path.as_uri()])
    assert tab.run("document.title").startswith("T <script>")


def test_the_verb_names_the_command_that_repeats_it(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out" / "report.html"
    run(ReportConfig([str(folder) for folder in runs], output_file=str(target), title="A b", num_pictures=3))
    command = f"mfpo report {runs[0]} {runs[1]} --output_file {target} --title 'A b' --num_pictures 3"
    assert command in parse(target).text
    shown = capsys.readouterr().out
    assert shown == f"written to {target}\nopen in a browser: {target.as_uri()}\n"


def test_a_negative_number_of_pictures_is_the_users_mistake(runs: list[Path]) -> None:
    with pytest.raises(UserError, match="out of range"):
        run(ReportConfig([str(folder) for folder in runs], num_pictures=-1))


def test_a_folder_that_is_not_there_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run folder"):
        write_report(tmp_path / "r.html", [tmp_path / "nowhere"])
