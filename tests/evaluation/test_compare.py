"""Comparisons of runs: which items are compared, what is shown, and what is refused."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from mfpo.errors import UserError
from mfpo.evaluation.compare import run
from mfpo.evaluation.comparison import compare_runs
from mfpo.evaluation.comparison_tables import cells, notes, power_note, stars, to_csv, to_html
from mfpo.evaluation.config import CompareConfig
from mfpo.evaluation.results import score_result
from mfpo.evaluation.statistics import Metric

METRICS = {
    "error": Metric("wrong", "items", better="lower"),
    "words": Metric("words", "items", scale=1),
    "never": Metric("nothing", "nothing"),
}


def save(folder: Path, wrong: list[int], name: str = "toy", first: int = 0) -> str:
    records = [
        {"id": f"i{first + n:03d}", "items": 1, "wrong": value, "words": 10 + value}
        for n, value in enumerate(wrong)
    ]
    score_result(name, records, METRICS, {}).save(folder / "scores" / f"{name}.json")
    return str(folder)


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def before(tmp_path: Path) -> str:
    return save(tmp_path / "sft", [1] * 60 + [0] * 40)


@pytest.fixture
def after(tmp_path: Path) -> str:
    return save(tmp_path / "mfpo-0.5", [1] * 20 + [0] * 80)


def test_several_score_files_of_one_benchmark_are_compared_file_by_file(tmp_path: Path) -> None:
    folders = []
    for name, wrong in (("a", 1), ("b", 0)):
        for file, count in (("toy_random", 10), ("toy_popular", 20)):
            source = save(tmp_path / f"{name}-{file}", [wrong] * count)
            (tmp_path / name / "scores").mkdir(parents=True, exist_ok=True)
            Path(source, "scores", "toy.json").rename(tmp_path / name / "scores" / f"{file}.json")
        folders.append(str(tmp_path / name))
    sizes = {found.benchmark: found.num_items for found in compare_runs(folders)}
    assert sizes == {"toy_random": 10, "toy_popular": 20}
    # A run with one of them is compared with its like, not with the last one.
    (tmp_path / "b" / "scores" / "toy_popular.json").unlink()
    assert {found.benchmark: found.num_items for found in compare_runs(folders)} == {"toy_random": 10}
    one = save(tmp_path / "c", [1] * 10)
    with pytest.raises(UserError, match="share no benchmark"):
        compare_runs([folders[0], one])


def test_values_differences_and_significance(before: str, after: str) -> None:
    (comparison,) = compare_runs([before, after])
    assert comparison.runs == ["sft", "mfpo-0.5"]
    assert [found["error"].value for found in comparison.estimates] == [60, 20]
    difference = comparison.differences[0]["error"]
    assert difference.value == -40
    assert difference.low < -30
    assert -50 < difference.high < -30 + 1
    assert difference.p_value < 0.001
    assert cells(comparison)[0][2].splitlines()[1].startswith("-40.0 [")
    assert cells(comparison)[0][2].endswith("]***")
    assert cells(comparison)[2] == ["never", "–", "–\n–"]


def test_terminal_and_markdown(before: str, after: str, tmp_path: Path, capsys) -> None:
    output = tmp_path / "table.md"
    run(CompareConfig(runs=[before, f"{after}/scores/toy.json"], metrics=("error",), output_file=str(output)))
    shown = capsys.readouterr().out
    table = output.read_text()
    for text in (shown, table):
        assert "60.0 [" in text
        assert "-40.0 [" in text
        assert "100 items" in text
    assert table.splitlines()[2] == "|  | sft | mfpo-0.5 |"
    assert table.splitlines()[4].startswith("| error ↓ | 60.0 [")
    assert "words" not in table


def test_many_runs_stand_below_each_other_in_a_narrow_terminal(before: str, tmp_path: Path, capsys) -> None:
    others = [save(tmp_path / ("long" * 10 + name), [0, 1] * 50) for name in "abc"]
    run(CompareConfig(runs=[before, *others]))
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count("error ↓") == 2


def test_runs_are_compared_on_the_items_they_share(before: str, tmp_path: Path) -> None:
    # i050 to i149: of the shared fifty, ten are wrong in the first run and none in the second.
    other = save(tmp_path / "other", [0] * 50 + [1] * 50, first=50)
    (comparison,) = compare_runs([before, other])
    assert (comparison.num_items, comparison.num_left_out) == (50, 100)
    assert [found["error"].value for found in comparison.estimates] == [20, 0]
    assert "100 items that not all runs have are left out" in " ".join(notes(comparison))


def test_every_benchmark_that_the_runs_share_is_compared(before: str, after: str) -> None:
    for folder in (before, after):
        save(Path(folder), [0, 1], name="probe")
    save(Path(after), [0, 1], name="alone")
    assert [comparison.benchmark for comparison in compare_runs([before, after])] == ["probe", "toy"]
    assert [comparison.benchmark for comparison in compare_runs([before, after], ["toy"])] == ["toy"]


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    runs = [save(tmp_path / part / "mfpo", [0, 1]) for part in ("a", "b")]
    assert compare_runs(runs)[0].runs == runs


def test_mistakes_are_told(before: str, after: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to compare"):
        compare_runs([])
    with pytest.raises(UserError, match="does not exist"):
        compare_runs([before, str(tmp_path / "nowhere")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no scores"):
        compare_runs([before, str(tmp_path / "empty")])
    with pytest.raises(UserError, match="did you mean 'toy'"):
        compare_runs([before, after], ["toi"])
    with pytest.raises(UserError, match="did you mean 'error'"):
        compare_runs([before, after], metrics=["errors"])
    with pytest.raises(UserError, match="share no benchmark"):
        compare_runs([before, save(tmp_path / "x", [1], name="other")])
    with pytest.raises(UserError, match="no item in common"):
        compare_runs([before, save(tmp_path / "y", [1, 0], first=500)])


@pytest.mark.parametrize(
    ("p", "marks"), [(0.0009, "***"), (0.001, "**"), (0.04, "*"), (0.05, ""), (float("nan"), "")]
)
def test_stars(p: float, marks: str) -> None:
    assert stars(p) == marks


def test_latex_is_escaped_and_complete(before: str, tmp_path: Path) -> None:
    other = save(tmp_path / "50%_off", [1] * 20 + [0] * 80)
    output = tmp_path / "table.tex"
    run(CompareConfig(runs=[before, other], metrics=("error",), output_file=str(output)))
    text = output.read_text()
    assert r" & sft & 50\%\_off \\" in text
    assert r"error $\downarrow$ & 60.0 [" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    # The difference stands on a line of its own under the value.
    assert any(line.strip().startswith("&  & -40.0 [") for line in text.splitlines())


def test_html_escapes_names_and_marks_what_is_better(before: str, tmp_path: Path) -> None:
    other = save(tmp_path / "<b>x", [1] * 20 + [0] * 80)
    text = to_html(compare_runs([before, other]))
    assert "<b>" not in text
    assert "&lt;b&gt;x" in text
    assert text.count('class="better"') == 1


def test_csv_has_a_line_for_each_metric_and_run(before: str, after: str) -> None:
    lines = list(csv.DictReader(to_csv(compare_runs([before, after])).splitlines()))
    assert [(line["metric"], line["run"]) for line in lines[:2]] == [("error", "sft"), ("error", "mfpo-0.5")]
    assert float(lines[1]["difference"]) == -40
    assert lines[0]["difference"] is None or lines[0]["difference"] == ""


def test_an_unknown_format_is_refused_before_any_work(before: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ending"):
        run(CompareConfig(runs=["nowhere"], output_file=str(tmp_path / "table.docx")))


def test_a_small_set_says_what_it_cannot_show(before: str, after: str, tmp_path: Path) -> None:
    (comparison,) = compare_runs([before, after], metrics=["error"])
    # Of 100 rows 40 get better by one: the paired difference has a standard error of
    # sqrt(0.4 * 0.6 / 100) = 4.9 points, of which 2.8 can be found four times in five.
    assert comparison.differences[0]["error"].detectable == pytest.approx(2.8 * 4.9, rel=0.06)
    assert re.search(
        r"With only 100 independent items, .* may well be missed \(80% power\): error 13\.\d\.$",
        " ".join(notes(comparison)),
    )
    large = [save(tmp_path / name, [0, 1] * 300) for name in ("a", "b")]
    assert "missed" not in " ".join(notes(compare_runs(large)[0]))


def test_items_of_the_same_picture_are_no_independent_ones(tmp_path: Path) -> None:
    runs = []
    for name in ("a", "b"):
        records = [
            {"id": f"i{n}", "group": f"g{n // 2}", "items": 1, "wrong": int(name == "b" and n % 3 == 0)}
            for n in range(40)
        ]
        score_result("toy", records, METRICS, {}).save(tmp_path / name / "scores" / "toy.json")
        runs.append(str(tmp_path / name))
    assert "only 20 independent groups of items (by picture)" in " ".join(notes(compare_runs(runs)[0]))


def test_no_limit_is_rounded_to_nothing(tmp_path: Path) -> None:
    """Attention on an object differs by hundredths of a point: such a limit was once shown as 0.0."""
    metrics = {name: Metric(name, "items") for name in ("small", "same", "plain")}
    runs = []
    for run_name in ("a", "b"):
        moved = run_name == "b"
        records = [
            {
                "id": str(n),
                "items": 1,
                "small": 0.0001 * (moved and n % 2),
                "same": 0.3,
                "plain": int(moved and n % 2),
            }
            for n in range(32)
        ]
        score_result("toy", records, metrics, {}).save(tmp_path / run_name / "scores" / "toy.json")
        runs.append(str(tmp_path / run_name))
    (note,) = power_note(compare_runs(runs)[0])
    # 2.8 standard errors of sqrt(0.25 / 32) = 0.088, times 100 points or 0.01.
    assert re.search(r"\(80% power\): small 0\.00[23], plain 2\d\.\d\.$", note)


def probed(folder: Path, moved: int) -> str:
    """A distortion probe with 24 metrics, four of them headline ones."""
    steps = [f"{scope}@{step}" for scope in ("region", "global") for step in range(100, 1100, 100)]
    names = ["clean", *steps, "black", "drop region@500", "drop black"]
    records = [
        {
            "id": str(n),
            "rows": 1,
            **{name: int((n + place + moved) % 3 == 0) for place, name in enumerate(names)},
        }
        for n in range(30)
    ]
    metrics = {name: Metric(name, "rows") for name in names}
    score_result("distortion", records, metrics, {}).save(folder / "scores" / "distortion.json")
    return str(folder)


def test_of_many_metrics_the_most_important_are_shown(tmp_path: Path, capsys) -> None:
    runs = [probed(tmp_path / "a", 0), probed(tmp_path / "b", 1)]
    run(CompareConfig(runs=runs, output_file=str(tmp_path / "t.csv")))
    shown = " ".join(capsys.readouterr().out.split())
    assert [name for name in compare_runs(runs)[0].metrics if f"│ {name} " in shown] == [
        "clean",
        "region@500",
        "global@500",
        "black",
    ]
    assert "20 more metrics of distortion, such as region@100: name them with --metrics" in shown
    note = shown[shown.index("80% power") :].split(" 20 more")[0]
    assert re.findall(r"[a-z]+(?:@\d+)?(?= \d)", note.partition(": ")[2]) == [
        "clean",
        "region@500",
        "global@500",
        "black",
    ]
    assert {line["metric"] for line in csv.DictReader((tmp_path / "t.csv").read_text().splitlines())} == set(
        compare_runs(runs)[0].metrics
    )
    run(CompareConfig(runs=runs, metrics=("region@100", "drop black")))
    shown = capsys.readouterr().out
    assert "region@100" in shown and "drop black" in shown and "more metrics" not in shown
