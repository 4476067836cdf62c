"""Figures of probes, and the polygons of MMHal-Bench's question types."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_checks import assert_self_contained
from PIL import Image

from mfpo.evaluation.benchmarks.mmhal import TYPES
from mfpo.evaluation.results import ScoreResult, score_result
from mfpo.evaluation.statistics import Metric
from mfpo.report.probes import (
    attention_maps,
    attention_shares,
    distortion,
    distortion_curves,
    overlay_note,
    overlays,
)
from mfpo.report.radar import radar, type_scores
from mfpo.report.report import write_report
from mfpo.report.runs import Run, load_runs


def mmhal(ratings: dict[str, list[int]]) -> ScoreResult:
    records = [
        {"id": f"{kind}{place}", "kind": kind, "rating": rating, "rated": 1}
        for kind, found in ratings.items()
        for place, rating in enumerate(found)
    ]
    metrics = {f"score_{kind}": Metric("rating", "rated", scale=1, kinds=(kind,)) for kind in ratings}
    return score_result("mmhal", records, metrics, {})


VCD = ("clean", "region@900", "region@500", "black")


def preferred(*names: str) -> ScoreResult:
    metrics: dict[str, Metric] = {name: Metric(f"{name} preferred", "rows") for name in names}
    metrics[f"drop {names[2]}"] = Metric({"clean preferred": 1, f"{names[2]} preferred": -1}, "rows")
    records = [
        {
            "id": str(row),
            "rows": 1,
            **{f"{name} preferred": int(row < 9 - place) for place, name in enumerate(names)},
        }
        for row in range(10)
    ]
    return score_result("distortion", records, metrics, {})


def attended(on_object: Any, on_image: Any) -> ScoreResult:
    settings = {"layers": {"object": on_object, "image": on_image}}
    return score_result("attention", [{"id": "1", "n": 1}], {"n": Metric("n", "n")}, settings)


def run_of(label: str, path: Path, *results: ScoreResult) -> Run:
    return Run(label, path, scores={str(place): result for place, result in enumerate(results)})


def test_a_polygon_has_the_mean_rating_of_each_type() -> None:
    scores = type_scores(
        [("a", mmhal({"attribute": [6, 2], "counting": [0], "relation": [3], "other": [5]}))]
    )
    assert scores == {"a": {"attribute": 4.0, "counting": 0.0, "relation": 3.0, "other": 5.0}}
    assert list(scores["a"]) == [kind for kind in TYPES if kind in scores["a"]]


def test_only_types_that_every_run_has_become_corners() -> None:
    first = mmhal({"attribute": [1], "counting": [2], "relation": [3], "other": [4]})
    second = mmhal({"attribute": [1], "counting": [2], "relation": [3]})
    assert set(type_scores([("a", first), ("b", second)])["a"]) == {"attribute", "counting", "relation"}


@pytest.mark.parametrize("kinds", [(), ("attribute",), ("attribute", "counting")])
def test_fewer_than_three_types_make_no_polygon(kinds: tuple[str, ...]) -> None:
    result = mmhal({"attribute": [1]})
    result.metrics = {f"score_{kind}": 1.0 for kind in kinds} | {"score_relation": math.nan}
    assert type_scores([("a", result)]) == {} and type_scores([]) == {}


def test_the_polygons_name_types_and_runs() -> None:
    scores = {label: dict.fromkeys(TYPES, 3.0) for label in ("base", "<b>tuned")}
    found = str(radar(scores, ["base", "<b>tuned"]))
    for word in (*TYPES, "base", "&lt;b&gt;tuned"):
        assert f">{word}</text>" in found
    assert "<b>" not in found


def test_curves_begin_at_the_clean_picture_and_ascend() -> None:
    (scope, curve), *others = distortion_curves(preferred(*VCD)).items()
    # Preferred in 9 of 10 rows with the clean picture, in 7 at step 500, in 8 at step 900.
    assert (scope, others) == ("region", [])
    assert [(step, found.value) for step, found in curve] == [(0, 90.0), (500, 70.0), (900, 80.0)]


def test_schedules_have_panels_of_their_own() -> None:
    both = preferred(*VCD, "region/ddpm-linear@500")
    titles = re.findall(r">(region[^<]*)</text>", str(distortion([run_of("a", Path(), both)])))
    assert titles == ["region", "region, ddpm-linear"]
    assert distortion([run_of("c", Path())]) is None


def test_attention_on_object_rest_and_text_adds_up() -> None:
    shares = attention_shares(attended([[1.0, 2.0]], [[10.0, 50.0]]))
    assert {name: cells.tolist() for name, cells in shares.items()} == {
        "object": [[1.0, 2.0]],
        "other": [[9.0, 48.0]],
        "text": [[90.0, 50.0]],
    }
    assert np.allclose(sum(shares.values()), 100)


def test_maps_share_a_scale_and_have_a_row_a_run(tmp_path: Path) -> None:
    runs = [
        run_of("a", tmp_path, attended([[1.0, 2.0]], [[10.0, 50.0]])),
        run_of("b", tmp_path, attended([[4.0, 0.0]], [[10.0, 50.0]])),
        run_of("c", tmp_path),
    ]
    found = str(attention_maps(runs))
    assert re.findall(r">the named object: ([^<]*)</text>", found) == ["1.5% (0 to 4.0%)", "2.0% (0 to 4.0%)"]
    assert attention_maps(runs[2:]) is None


def test_overlays_of_runs_stand_side_by_side(tmp_path: Path) -> None:
    result = attended([[1.0]], [[10.0]])
    for name, colour, keywords in (("a", "red", ("red_mug", "dog")), ("b", "blue", ("red_mug",))):
        result.save(tmp_path / name / "scores" / "attention.json")
        (tmp_path / name / "attention").mkdir()
        for keyword in keywords:
            Image.new("RGB", (600, 400), colour).save(tmp_path / name / "attention" / f"row-7-{keyword}.png")
    (tmp_path / "a" / "attention" / "row-8-broken.png").write_bytes(b"none")
    found = overlays(load_runs([tmp_path / "a", tmp_path / "b"]))
    assert [(one.row, one.keyword, [bool(p) for p in one.pictures]) for one in found] == [
        ("row-7", "dog", [True, False]),
        ("row-7", "red mug", [True, True]),
    ]
    assert all(len(picture) < 10_000 for one in found for picture in one.pictures)


def test_equal_overlays_bear_the_names_of_their_runs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        attended([[1.0]], [[10.0]]).save(tmp_path / name / "scores" / "attention.json")
        (tmp_path / name / "attention").mkdir()
        Image.new("RGB", (60, 40), "red").save(tmp_path / name / "attention" / "row-7-mug.png")
    page = assert_self_contained(write_report(tmp_path / "r.html", [tmp_path / "a", tmp_path / "b"]))
    assert "mugrow row-7" in page.text and "id of the preference row" in page.text
    alts = [image["alt"] for image in page.named("img")]
    assert alts == [f"attention of {name} while it names mug" for name in ("a", "b")]


def test_the_meaning_of_the_colour_is_that_of_the_pictures() -> None:
    old, new = attended([[1.0]], [[10.0]]), attended([[1.0]], [[10.0]])
    new.settings["overlay_full_at"] = 4.0
    note = overlay_note([run_of("a", Path(), new), run_of("b", Path(), new)])
    assert "spread evenly" in note and "4 times as much" in note
    assert "scale of their own" in overlay_note([run_of("a", Path(), new), run_of("b", Path(), old)])


def test_every_probe_has_its_place_on_the_page(tmp_path: Path) -> None:
    for result in (preferred(*VCD), attended([[1.0]], [[10.0]]), mmhal({kind: [3] for kind in TYPES})):
        result.save(tmp_path / "run" / "scores" / f"{result.name}.json")
    page = assert_self_contained(write_report(tmp_path / "r.html", [tmp_path / "run"]))
    assert [a["id"] for a in page.named("section")] == [
        "results",
        "types",
        "distortion",
        "attention",
        "settings",
    ]
