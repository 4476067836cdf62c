"""Functions of the page's script one by one, against Python or numbers worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_checks import make_pair, write_dataset

from chromium import Browser
from mfpo.preferences.noise import noise_level
from mfpo.preferences.regions.masks import encode_rle, faded
from mfpo.report.browse import run
from mfpo.report.browser.words import percent
from mfpo.report.config import BrowseConfig


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_dataset(tmp_path_factory.mktemp("scripts") / "data", [make_pair()])
    run(BrowseConfig(str(folder)))
    return folder / "browse.html"


@pytest.fixture
def script(page: Path, tab: Browser) -> Browser:
    tab.open(page)
    return tab


def test_masks_are_decoded_as_they_were_encoded(script: Browser) -> None:
    generator = np.random.default_rng(0)
    masks = [
        generator.random((height, width)) < share
        for height, width, share in [(1, 1, 0.5), (7, 3, 0.5), (40, 60, 0.01), (60, 40, 0.9), (300, 448, 0.3)]
    ]
    masks += [np.zeros((9, 5), bool), np.ones((5, 9), bool)]
    for mask in masks:
        decoded = script.run(
            f"Array.from(mfpo.decodeMask({json.dumps(encode_rle(mask))}, {list(mask.shape)})).join('')"
        )
        assert decoded == "".join(map(str, mask.astype(int).ravel()))


def test_noise_fades_as_in_training(script: Browser) -> None:
    generator = np.random.default_rng(0)
    box = np.zeros((40, 60), bool)
    box[10:20, 30:50] = True
    for mask, width in [
        (box, 7.5),
        (box, 0.4),
        (generator.random((30, 20)) < 0.01, 6.0),
        (np.eye(9, 12, dtype=bool), 40.0),
    ]:
        cells = f"Uint8Array.from({mask.astype(int).ravel().tolist()})"
        found = script.run(f"Array.from(mfpo.fadedMask({cells}, {list(mask.shape)}, {width}))")
        np.testing.assert_allclose(np.array(found).reshape(mask.shape), faded(mask, width), atol=1e-6)


def test_half_of_the_strength_is_half_of_the_noise(script: Browser) -> None:
    """The left half of a plain picture at strength 0.5 is half way to what noise makes of it, black here."""
    pixels = script.run("""(() => {
      const plain = mfpo.newCanvas(40, 20), context = plain.getContext('2d');
      context.fillStyle = 'rgb(90, 90, 90)'; context.fillRect(0, 0, 40, 20);
      const strength = new Float32Array(800).map((_, i) => i % 40 < 20 ? 0.5 : 0);
      const canvas = mfpo.newCanvas(40, 20), none = mfpo.newCanvas(40, 20);
      const layers = { light: none, dark: none, scale: 1 };
      mfpo.drawPreview(canvas, plain, layers, mfpo.drawStrength(strength, [20, 40]), 0, [0, 0, 0]);
      return Array.from(canvas.getContext('2d').getImageData(0, 0, 40, 20).data);
    })()""")
    shown = np.array(pixels).reshape(20, 40, 4)[..., 0]
    assert np.abs(shown[:, :20] - 45).max() <= 1 and (shown[:, 20:] == 90).all()


def test_an_outline_is_the_border_of_a_mask(script: Browser) -> None:
    mask = np.zeros((6, 7), dtype=int)
    mask[1:5, 1:6] = 1
    mask_text = f"Uint8Array.from({mask.ravel().tolist()})"
    outline = np.array(script.run(f"Array.from(mfpo.outlineOf({mask_text}, [6, 7], 1))")).reshape(6, 7)
    expected = mask.copy()
    expected[2:4, 2:5] = 0
    assert (outline == expected).all()
    assert script.run(f"mfpo.anchorOf({mask_text}, [6, 7])") == pytest.approx([3 / 7, 1 / 6])


def test_noise_is_standard_normal_and_its_seed_decides(script: Browser) -> None:
    draw = "Array.from(mfpo.normals(mfpo.random('{}'), 20001))"
    one, again, other = (np.array(script.run(draw.format(seed))) for seed in ("7", "7", "8"))
    assert len(one) == 20001 and (one == again).all()
    # Five standard errors of mean, variance and correlation.
    assert abs(one.mean()) < 5 / 141 and abs(one.var() - 1) < 5 * 2**0.5 / 141
    assert abs(np.corrcoef(one, other)[0, 1]) < 5 / 141
    assert 0.02 < (np.abs(one) > 2.2).mean() < 0.036


@pytest.mark.parametrize("step", [0, 500, 999])
def test_the_preview_has_the_strength_of_the_schedule(script: Browser, step: int) -> None:
    """On a plain picture of 90: mean signal*90 + (1-signal)*mean, standard deviation sigma*spread."""
    level = noise_level("vcd", step)
    pixels = script.run(f"""(() => {{
      const plain = mfpo.newCanvas(120, 100), context = plain.getContext('2d');
      context.fillStyle = 'rgb(90, 90, 90)'; context.fillRect(0, 0, 120, 100);
      const mask = new Uint8Array(12000).map((_, i) => i % 120 < 60 ? 1 : 0);
      const stencil = mfpo.drawMask(mfpo.newCanvas(1, 1), mask, [100, 120], '#000000', true);
      const canvas = mfpo.newCanvas(120, 100);
      const layers = mfpo.noiseLayers('5', 120, 100, [30, 24, 27]);
      mfpo.drawPreview(canvas, plain, layers, stencil, {level.signal}, [120, 110, 100]);
      return Array.from(canvas.getContext('2d').getImageData(0, 0, 120, 100).data);
    }})()""")
    shown = np.array(pixels, dtype=float).reshape(100, 120, 4)
    assert (shown[:, 60:, :3] == 90).all() and (shown[..., 3] == 255).all()
    for colour, (mean, spread) in enumerate([(120, 30), (110, 24), (100, 27)]):
        inside = shown[:, :60, colour]
        expected = level.signal * 90 + (1 - level.signal) * mean
        assert inside.mean() == pytest.approx(expected, abs=1 + 5 * level.sigma * spread / 6000**0.5)
        assert inside.std() == pytest.approx(level.sigma * spread, rel=0.06, abs=1)


def test_the_page_knows_the_schedules(script: Browser) -> None:
    signal = script.run("mfpo.settings.signal")
    assert signal["vcd"][500] == pytest.approx(0.745**0.5, abs=1e-3)
    assert signal["ddpm-linear"][500] == pytest.approx(0.078**0.5, abs=2e-3)
    assert [len(values) for values in signal.values()] == [1000, 1000]


def test_the_address_holds_the_state(script: Browser) -> None:
    changed = {"q": "a & b = c#d", "scope": "random", "min": "2.5", "row": "x y", "view": "grid"}
    text = script.run(f"mfpo.formatState({{...mfpo.defaults, ...{json.dumps(changed)}}})")
    back = script.run(f"mfpo.parseState('#' + {json.dumps(text)})")
    assert {name: value for name, value in back.items() if value} == changed | {"sort": "number"}
    odd = script.run("mfpo.parseState('#view=nowhere&sort=__proto__&toString=1&__proto__=2')")
    assert odd == script.run("mfpo.defaults")


def row(number: int, **changes: Any) -> dict[str, Any]:
    noise = {"scope": "region", "fallback": ""}
    fields = {
        "number": number,
        "id": str(number),
        "images": [],
        "problem": "",
        "turns": [],
        "chosen": [],
        "rejected": [],
        "keywords": [],
        "share": 0.1,
        "noise": noise,
        "entropy": None,
        "difficulty": "",
        "extra": [],
    }
    return fields | changes


def selected(tab: Browser, rows: list[dict[str, Any]], **changes: str) -> list[int]:
    state = f"{{...mfpo.defaults, ...{json.dumps(changes)}}}"
    numbers: list[int] = tab.run(f"mfpo.select({json.dumps(rows)}, {state}).map(row => row.number)")
    return numbers


def test_rows_without_a_value_come_last_in_both_directions(script: Browser) -> None:
    rows = [row(1, entropy=2.0), row(2), row(3, entropy=1.0), row(4, entropy=2.0)]
    assert selected(script, rows, sort="difficulty") == [3, 1, 4, 2]
    assert selected(script, rows, sort="difficulty", down="1") == [1, 4, 3, 2]
    assert selected(script, rows, down="1") == [4, 3, 2, 1]


def test_search_looks_across_marks_and_columns(script: Browser) -> None:
    rows = [
        row(1, chosen=["a ", ["red", 0, 1], "dish"]),
        row(2, extra=[["origin", "Reddish"]]),
        row(3, turns=[{"role": "user", "text": "redder"}]),
    ]
    assert selected(script, rows, q="REDDISH") == [1, 2]
    assert selected(script, rows, q="red dish") == [1, 2]


def test_ranges_are_of_what_is_there(script: Browser) -> None:
    rows = [row(1, share=0.05), row(2, share=0.5, entropy=3.0), row(3, share=0.2, entropy=1.0)]
    assert selected(script, rows, min="5", max="20") == [1, 3]
    assert selected(script, rows, emin="0") == [2, 3]
    assert selected(script, rows, emax="two") == [1, 2, 3]


def test_only_columns_with_few_values_are_offered(script: Browser) -> None:
    rows = [row(n, extra=[["id", str(n)], ["origin", "ab"[n % 2]], ["same", "x"]]) for n in range(60)]
    facets = script.run(f"[...mfpo.facets({json.dumps(rows)})].map(([name, values]) => [name, [...values]])")
    assert facets == [["origin", [["a", 30], ["b", 30]]]]


def test_shares_read_as_in_the_statistics(script: Browser) -> None:
    shares = [0.0, 0.0004, 0.004, 0.0999, 0.256, 1.0]
    assert script.run(f"{shares}.map(mfpo.percent)") == [percent(share) for share in shares]
