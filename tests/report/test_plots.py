"""Plots as SVG for a page."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

from mfpo.evaluation.statistics import Estimate
from mfpo.report import plots
from mfpo.report.plots import RunLog, stage_spans

POINT = Estimate(50.0, 45.0, 55.0)


def log(label: str = "mfpo", stages: tuple[str, ...] = ("easy", "hard")) -> RunLog:
    records = [
        {
            "step": step,
            "stage": 1.0 if step <= 30 else 2.0,
            "loss": 2.0,
            "loss/text": 0.6,
            "loss/image": 0.7,
            "loss/margin": 0.7,
            "rewards/chosen": 0.1,
            "rewards/rejected": -0.1,
            "rewards/image_rejected": 0.0,
            "rewards/margins": 0.2,
            "rewards/image_margins": 0.1,
        }
        for step in (10, 20, 30, 40, 50)
    ]
    return RunLog(label, [*records, {"step": 50, "train_loss": 1.9}], stages)


def texts(svg: str) -> set[str]:
    return {"".join(element.itertext()).strip() for element in ElementTree.fromstring(svg).iter("text")}


def test_stages_meet_where_one_ends() -> None:
    assert stage_spans(log().records) == [(1, 0.0, 30.0), (2, 30.0, 50.0)]


def test_a_line_over_two_stages_counts_for_the_nearer() -> None:
    records = [{"step": 1, "stage": 1.0}, {"step": 2, "stage": 1.4}, {"step": 3, "stage": 1.8}]
    assert stage_spans(records) == [(1, 0.0, 2.0), (2, 2.0, 3.0)]


def test_panels_name_runs_series_and_stages() -> None:
    margins, losses = plots.reward_margins([log()]), plots.losses([log()])
    assert margins is not None and losses is not None
    assert {"mfpo", "easy", "hard", "text: chosen − rejected answer"} <= texts(margins)
    assert {"text", "image", "margin", "total"} <= texts(losses)


def test_a_run_without_the_image_term_has_no_line_for_it() -> None:
    records = [{"step": 1, "loss/text": 0.6, "loss": 0.6, "rewards/margins": 0.1}]
    margins = plots.reward_margins([RunLog("dpo", records)])
    assert margins is not None
    assert not any(text.startswith("image") for text in texts(margins))


def test_without_records_there_is_no_plot() -> None:
    assert plots.reward_margins([RunLog("sft", [])]) is None
    assert plots.losses([RunLog("sft", [{"step": 1, "loss": 1.0}])]) is None


def test_the_scatter_labels_every_run() -> None:
    found = texts(plots.scatter([POINT] * 3, [POINT] * 3, ["sft", "dpo", "mfpo"], "Cover", "CHAIR_i"))
    assert {"sft", "dpo", "mfpo", "← lower is better, CHAIRᵢ"} <= found


def test_a_run_keeps_its_colour_when_one_before_it_has_no_point() -> None:
    first, second = (
        str(plots.scatter([POINT], [POINT], ["mfpo"], "Cover", "CHAIR_i", places)) for places in (None, [1])
    )
    assert "--fig-grey" in first and "--fig-blue" not in first
    assert "--fig-blue" in second and "--fig-grey" not in second


def test_an_undefined_interval_is_no_obstacle() -> None:
    undefined = Estimate(50.0, math.nan, math.nan)
    assert "only" in texts(plots.scatter([undefined], [POINT], ["only"], "Cover", "CHAIR_i"))


def test_distortion_has_a_panel_per_scope() -> None:
    curve = [(0, POINT), (500, POINT)]
    panels = {"region": {"sft": curve}, "global": {"sft": curve, "mfpo": curve}}
    found = texts(plots.distortion(panels, ["sft", "mfpo"]))
    assert {"region", "global", "sft", "mfpo"} <= found


def test_labels_are_text_not_markup_nor_formulas() -> None:
    labels = ["$x^2$ <b>&amp;", "<script>alert()</script>"]
    svg = plots.scatter([POINT] * 2, [POINT] * 2, labels, "Cover", "CHAIR_i")
    assert set(labels) <= texts(svg)
    assert "<script" not in svg and "<b>" not in svg


def test_long_labels_leave_room_for_the_plot() -> None:
    label = f"a name of {'m' * 500}"
    margins = plots.reward_margins([log(label)])
    for svg in (margins, plots.scatter([POINT], [POINT], [label], "Cover", "CHAIR_i")):
        assert any(text.startswith("a name of m") and text.endswith("…") for text in texts(str(svg)))


def test_plots_follow_the_page_and_share_it() -> None:
    one, other = (str(plots.distortion({"region": {"sft": [(0, POINT)]}}, ["sft"])) for _ in range(2))
    ids = [set(re.findall(r'\bid="([^"]*)"', svg)) for svg in (one, other)]
    assert ids[0] and not ids[0] & ids[1]
    for svg, own in zip((one, other), ids, strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', svg)) <= own
        assert "var(--ink)" in svg and "http" not in svg
