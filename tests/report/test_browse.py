"""``mfpo browse``: what is written where, for which rows, and the user's mistakes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from page_checks import make_pair, rows_of, write_dataset

from mfpo.data.files import write_jsonl
from mfpo.errors import UserError
from mfpo.report import browse
from mfpo.report.browse import run
from mfpo.report.config import BrowseConfig


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nine") / "data"
    return write_dataset(folder, [make_pair(prompt=f"question {n}", seed=n) for n in range(9)])


def test_few_rows_become_a_file_beside_the_data(nine: Path) -> None:
    run(BrowseConfig(str(nine)))
    assert [row["number"] for row in rows_of(nine / "browse.html")] == list(range(1, 10))


def test_many_rows_become_a_folder(nine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browse, "MOST_ROWS_IN_A_FILE", 8)
    run(BrowseConfig(str(nine)))
    page = nine / "browse" / "index.html"
    assert [row["number"] for row in rows_of(page)] == list(range(1, 10))
    assert len(list((page.parent / "images").iterdir())) == 18


def test_rows_are_spread_over_the_dataset(nine: Path, tmp_path: Path) -> None:
    run(BrowseConfig(str(nine), output_file=str(tmp_path / "page.html"), max_rows=3))
    rows = rows_of(tmp_path / "page.html")
    assert [row["turns"][0]["text"] for row in rows] == ["question 0", "question 3", "question 6"]


def test_zero_shows_all(nine: Path, tmp_path: Path) -> None:
    run(BrowseConfig(str(nine), output_file=str(tmp_path / "page.html"), max_rows=0))
    assert len(rows_of(tmp_path / "page.html")) == 9


@pytest.mark.parametrize("kind", ["output_file", "output_dir"])
def test_the_same_data_give_the_same_bytes(nine: Path, tmp_path: Path, kind: str) -> None:
    def files(name: str) -> dict[str, bytes]:
        target = tmp_path / kind / name
        settings: dict[str, Any] = {kind: str(target)}
        run(BrowseConfig(str(nine), **settings))
        paths = [target] if target.is_file() else [path for path in target.rglob("*") if path.is_file()]
        return {str(path.relative_to(target)): path.read_bytes() for path in paths}

    assert files("one") == files("two")


def test_judged_rows_are_always_shown_with_their_verdicts(nine: Path, tmp_path: Path) -> None:
    run(BrowseConfig(str(nine), output_file=str(tmp_path / "all.html")))
    last = rows_of(tmp_path / "all.html")[8]["id"]
    write_jsonl(tmp_path / "verdicts.jsonl", [{"id": last, "verdict": "bad", "note": "no mug"}])
    page = tmp_path / "page.html"
    run(BrowseConfig(str(nine), output_file=str(page), max_rows=3, verdicts=str(tmp_path / "verdicts.jsonl")))
    assert [row["number"] for row in rows_of(page)] == [1, 5, 9]
    assert f'["{last}","bad","no mug"]' in page.read_text(encoding="utf-8")


def test_an_older_page_in_the_folder_is_replaced(nine: Path, tmp_path: Path) -> None:
    for rows in (0, 2):
        run(BrowseConfig(str(nine), output_dir=str(tmp_path / "page"), max_rows=rows))
    assert len(list((tmp_path / "page" / "images").iterdir())) == 4


def test_a_folder_with_other_things_in_it_is_left_alone(nine: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.png").write_bytes(b"mine")
    (tmp_path / "index.html").write_text("<title>mine</title>")
    with pytest.raises(UserError, match="something else"):
        run(BrowseConfig(str(nine), output_dir=str(tmp_path)))
    assert (tmp_path / "images" / "mine.png").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["images", "pictures", "rows"])
def test_a_users_folder_of_our_name_is_left_alone(nine: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="something else"):
        run(BrowseConfig(str(nine), output_dir=str(tmp_path)))
    assert (tmp_path / name / "mine.png").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_report_is_no_page_of_a_folder(nine: Path, tmp_path: Path) -> None:
    run(BrowseConfig(str(nine), output_file=str(tmp_path / "index.html"), max_rows=1))
    with pytest.raises(UserError, match="something else"):
        run(BrowseConfig(str(nine), output_dir=str(tmp_path)))


def test_a_folder_that_was_interrupted_is_written_again(
    nine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mfpo.report.browser.rows.RowMaker.make", fail)
        with pytest.raises(KeyboardInterrupt):
            run(BrowseConfig(str(nine), output_dir=str(tmp_path)))
    assert not (tmp_path / "index.html").exists()
    run(BrowseConfig(str(nine), output_dir=str(tmp_path)))
    assert len(rows_of(tmp_path / "index.html")) == 9


def test_an_older_page_without_a_mark_is_replaced(nine: Path, tmp_path: Path) -> None:
    run(BrowseConfig(str(nine), output_dir=str(tmp_path), max_rows=1))
    (tmp_path / ".mfpo-browse").unlink()
    run(BrowseConfig(str(nine), output_dir=str(tmp_path), max_rows=2))
    assert len(rows_of(tmp_path / "index.html")) == 2


def test_nothing_is_left_behind_when_it_fails(
    nine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("mfpo.report.browser.rows.RowMaker.make", fail)
    with pytest.raises(MemoryError):
        run(BrowseConfig(str(nine), output_file=str(tmp_path / "page.html")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_rows": -1}, "--max_rows"),
        ({"image_size": 8}, "--image_size"),
        ({"output_file": "a", "output_dir": "b"}, "give one"),
        ({"verdicts": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"reference": "0123"}, "no reference pass"),
    ],
)
def test_mistakes_name_their_setting(nine: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(BrowseConfig(str(nine), **settings))


def test_a_folder_without_a_dataset_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no dataset"):
        run(BrowseConfig(str(tmp_path)))


@pytest.mark.parametrize(
    "line", [{"verdict": "good"}, {"id": "a", "verdict": "fine"}, {"id": 3, "verdict": ""}]
)
def test_a_line_that_is_no_verdict_is_named(nine: Path, tmp_path: Path, line: dict[str, Any]) -> None:
    path = tmp_path / "verdicts.jsonl"
    write_jsonl(path, [{"id": "x", "verdict": "good"}, line])
    with pytest.raises(UserError, match="record 2"):
        run(BrowseConfig(str(nine), verdicts=str(path)))


def test_difficulty_is_shown_of_ranked_datasets(tmp_path: Path) -> None:
    pairs = [make_pair(seed=seed) for seed in range(3)]
    folder = write_dataset(tmp_path / "data", pairs)
    (folder / "reference").mkdir()
    # The second row was not ranked; the other estimator is not asked for.
    columns = {
        "id": [pairs[0].id, pairs[2].id],
        "entropy_paper": [0.25, 2.5],
        "difficulty_paper": ["easy", "hard"],
        "entropy_token-mean": [9.0, 9.0],
        "difficulty_token-mean": ["easy", "easy"],
    }
    pq.write_table(pa.table(columns), folder / "reference" / "feed.parquet")
    run(BrowseConfig(str(folder)))
    rows = rows_of(folder / "browse.html")
    assert [(row["entropy"], row["difficulty"]) for row in rows] == [
        (0.25, "easy"),
        (None, ""),
        (2.5, "hard"),
    ]
    text = (folder / "browse.html").read_text(encoding="utf-8")
    assert "estimator paper, pass feed" in text
    run(BrowseConfig(str(folder), difficulty="token-mean"))
    assert rows_of(folder / "browse.html")[0]["entropy"] == 9.0


def test_semantic_entropies_are_of_the_pass_that_they_lie_beside(tmp_path: Path) -> None:
    """`mfpo rank --semantic` writes a second file, which was taken for a pass without the paper's entropy."""
    pair = make_pair()
    folder = write_dataset(tmp_path / "data", [pair])
    (folder / "reference").mkdir()
    entropies = {"old": {"paper": 0.5}, "feed": {"paper": 1.5}, "feed.semantic": {"semantic": 2.5}}
    for time, (name, values) in enumerate(entropies.items()):
        columns: dict[str, list[Any]] = {"id": [pair.id]}
        for estimator, value in values.items():
            columns |= {f"entropy_{estimator}": [value], f"difficulty_{estimator}": ["hard"]}
        path = folder / "reference" / f"{name}.parquet"
        pq.write_table(pa.table(columns), path)
        os.utime(path, (time, time))

    def shown(**settings: Any) -> float:
        run(BrowseConfig(str(folder), **settings))
        return float(rows_of(folder / "browse.html")[0]["entropy"])

    assert shown() == 1.5
    assert shown(difficulty="semantic") == shown(difficulty="semantic", reference="feed") == 2.5
    assert "estimator semantic, pass feed<" in (folder / "browse.html").read_text(encoding="utf-8")
    assert shown(reference="old") == 0.5
    with pytest.raises(UserError, match="no entropies") as caught:
        shown(difficulty="semantic", reference="old")
    assert caught.value.fix == "--difficulty paper, or run `mfpo rank --semantic`"
    with pytest.raises(UserError, match="no reference pass"):
        shown(reference="feed.semantic")


def test_damaged_text_does_not_stop_the_page(tmp_path: Path) -> None:
    pair = make_pair(prompt="zero \x00 and separators \u2028 \u2029 </script>")
    folder = write_dataset(tmp_path / "data", [pair])
    run(BrowseConfig(str(folder)))
    assert (
        rows_of(folder / "browse.html")[0]["turns"][0]["text"]
        == "zero \x00 and separators \u2028 \u2029 </script>"
    )
