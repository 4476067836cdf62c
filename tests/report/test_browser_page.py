"""The page of ``mfpo browse`` in a real browser, as one file and as a folder."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_checks import HOSTILE, assert_self_contained, make_pair, picture, write_dataset

from chromium import Browser, find_chromium
from mfpo.data.files import write_jsonl
from mfpo.data.writer import DatasetWriter
from mfpo.errors import Skip
from mfpo.preferences.regions.masks import encode_rle
from mfpo.records import ImageSource, Noise, PreferencePair, Region, RegionStatus, assistant_message
from mfpo.report.browse import run
from mfpo.report.config import BrowseConfig

ATTACK = (
    "</script><script>window.__pwned=1;alert(1)</script><img src=x onerror=alert(2)>"
    "<svg onload=alert(3)></textarea><!--<script>javascript:alert(4)\u2028`${alert(5)}`'\"&lt;"
) + HOSTILE


def rich_pair(seed: int = 0, **changes: Any) -> PreferencePair:
    """A row with two found keywords, one of them also found too large in another place."""
    pair = make_pair(
        "A red mug stands on a table. The mug is full.", "A red mug and a spoon stand on a table.", seed=seed
    )
    mask = np.zeros((64, 96), dtype=bool)
    mask[48:, :] = True
    table = Region("table", (0, 48, 96, 64), 0.5, encode_rle(mask), (64, 96))
    status = (RegionStatus("mug", "found", 0.25, 0.9), RegionStatus("table", "found", 0.25, 0.5))
    fields: dict[str, Any] = {"regions": (*pair.regions, table), "region_status": status, **changes}
    return replace(pair, **fields)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of all kinds: every scope, a broken picture, several images and turns, nothing found."""
    turns = [
        {
            "role": "user",
            "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Compare."}],
        },
        *assistant_message("They differ."),
        {"role": "user", "content": [{"type": "text", "text": "How?"}]},
    ]
    pairs = [
        rich_pair(1, extra={"origin": "COCO"}),
        rich_pair(2, noise=Noise("global", seed=2), extra={"origin": "VG"}),
        rich_pair(3, noise=Noise("random", step=900, seed=3), extra={"origin": "VG"}),
        rich_pair(4, noise=Noise("crop", seed=4)),
        rich_pair(5, noise=Noise("erase", seed=5)),
        rich_pair(6, noise=Noise("black", seed=6)),
        rich_pair(7, noise=Noise("swap", seed=7), rejected_images=(picture(seed=70),)),
        rich_pair(
            8,
            noise=Noise("global", seed=8),
            regions=(),
            region_status=(RegionStatus("mug", "not-found"), RegionStatus("table", "too-large", 0.8, 0.7)),
        ),
        rich_pair(9, images=(ImageSource("gone.png", b"no image"),)),
        rich_pair(
            10, prompt=turns, images=(picture(seed=100), picture(seed=10)), noise=Noise(image=1, seed=10)
        ),
    ]
    folder = write_dataset(tmp_path_factory.mktemp("kinds") / "data", pairs)
    (folder / "config.yaml").write_text("noise_scope: region\n")
    return folder


@pytest.fixture(scope="module")
def page(dataset: Path) -> Path:
    run(BrowseConfig(str(dataset)))
    return dataset / "browse.html"


@pytest.fixture
def opened(page: Path, tab: Browser) -> Browser:
    open_page(tab, page)
    return tab


def open_page(tab: Browser, path: Path, fragment: str = "") -> None:
    tab.open(path, fragment)
    tab.wait("document.body.dataset.ready && document.querySelector('#content > *')")


def state(tab: Browser) -> dict[str, Any]:
    found: dict[str, Any] = tab.run("mfpo.state()")
    return found


def show(tab: Browser, number: int) -> None:
    """Open the row of that number."""
    tab.run(f"void (location.hash = 'row=' + mfpo.state().found[{number - 1}])")
    tab.wait(f"document.getElementById('place').textContent === 'Row {number}'")


def text(tab: Browser, selector: str) -> str:
    return str(tab.run(f"document.querySelector({json.dumps(selector)}).textContent"))


def fill(tab: Browser, name: str, value: str) -> None:
    field = f"document.querySelector('#filters [name={name}]')"
    tab.run(
        f"void ({field}.value = {json.dumps(value)},"
        f" {field}.dispatchEvent(new Event('input', {{bubbles: true}})))"
    )


def shown(tab: Browser) -> list[int]:
    """Numbers of the rows that fit the filters, in their order, by id."""
    numbers: list[int] = tab.run("mfpo.state().found.map(id => 1 + all.indexOf(id))")
    return numbers


def test_one_file_loads_nothing_and_says_nothing(page: Path, tab: Browser) -> None:
    assert_self_contained(page)
    open_page(tab, page)
    assert (tab.console, tab.dialogs, tab.requests) == ([], [], [page.as_uri()])


def test_the_list_has_its_pictures_as_soon_as_the_page_is_loaded(page: Path, tmp_path: Path) -> None:
    """`chromium --headless --screenshot` takes the page as it is then: all thumbnails were grey."""
    executable = find_chromium()
    if executable is None:
        pytest.skip("no Chromium is installed")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom")
    done = subprocess.run([executable, *flags, page.as_uri()], capture_output=True, text=True, timeout=120)
    rows = done.stdout.partition('id="list"')[2].partition('id="nothing"')[0]
    items, filled = (rows.count(start) for start in ('class="item', 'class="thumb"><div class="stack"><img'))
    assert items > 5 and filled == items - 1  # one picture is broken


def test_pictures_of_the_list_stay_when_the_window_changes(opened: Browser) -> None:
    opened.wait("document.querySelectorAll('#list .thumb img').length > 5")
    opened.run("void (window.kept = document.querySelector('#list .thumb img'))")
    opened.size(1200, 700)
    opened.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert opened.run("kept.isConnected")


def test_what_the_model_does_not_see_is_told(opened: Browser) -> None:
    """Of 96 x 64 CLIP's square is the middle two thirds."""
    assert text(opened, ".figures .note") == "Framed: what the model sees, the middle 67% of the width."
    frame = opened.run("""(() => { const a = document.querySelector('.seen').getBoundingClientRect(),
      b = document.querySelector('.seen').parentNode.getBoundingClientRect();
      return [(a.left - b.left) / b.width, a.width / b.width, a.height / b.height]; })()""")
    assert frame == pytest.approx([1 / 6, 2 / 3, 1], abs=0.02)
    notes = opened.run("[...document.querySelectorAll('.figures .note')].map(p => p.textContent)")
    assert any("Cropped by the model's processor to the middle 67% of the width." in note for note in notes)
    show(opened, 10)
    opened.run("document.querySelector('.strip button').click()")
    assert text(opened, ".figures .note") == ""  # the other image is not the one that is perturbed


def test_the_verb_says_how_to_open_the_page(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(BrowseConfig(str(dataset), max_rows=2, exact_images=False, output_file=str(tmp_path / "a b.html")))
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == f"written to {tmp_path / 'a b.html'} (2 of 10 rows)"
    assert second == f"open in a browser: {(tmp_path / 'a b.html').as_uri()}"


def test_a_folder_loads_only_its_own_files(dataset: Path, tmp_path: Path, tab: Browser) -> None:
    run(BrowseConfig(str(dataset), output_dir=str(tmp_path / "page")))
    open_page(tab, tmp_path / "page" / "index.html")
    tab.wait("document.querySelector('#list img')?.naturalWidth > 0")
    assert (tab.console, tab.dialogs) == ([], [])
    assert all(address.startswith((tmp_path / "page").as_uri()) for address in tab.requests)
    tab.press("n")
    tab.wait("document.querySelector('figure canvas[role=img]')?.getAttribute('aria-label')")
    assert tab.console == []


def test_a_folder_that_lost_its_rows_says_so(dataset: Path, tmp_path: Path, tab: Browser) -> None:
    run(BrowseConfig(str(dataset), output_dir=str(tmp_path / "page")))
    (tmp_path / "page" / "rows" / "00000.js").unlink()
    tab.open(tmp_path / "page" / "index.html")
    tab.wait("document.getElementById('said').textContent")
    assert "rows/00000.js is missing" in text(tab, "#said")


def test_keywords_and_differences_are_marked(opened: Browser) -> None:
    marks = opened.run(
        "[...document.querySelectorAll('.answers mark')].map(m => [m.textContent, m.className])"
    )
    assert marks == [
        ["mug", "kw k0"],
        ["stands", "only-chosen"],
        ["table", "kw k1"],
        ["The ", "only-chosen"],
        ["mug", "kw k0 only-chosen"],
        [" is full", "only-chosen"],
        ["and a spoon stand", "only-rejected"],
    ]
    assert "25% of the picture, confidence 0.50" in text(opened, ".legend")


def test_masks_lie_where_the_regions_are(opened: Browser) -> None:
    alpha = """((rank, x, y) => { const c = document.querySelector(`#content canvas[data-rank="${rank}"]`);
      return c.getContext('2d').getImageData(x * c.width, y * c.height, 1, 1).data[3]; })"""
    # The mug is at rows 16..48 and columns 24..72 of 64 x 96, the table in the lowest quarter.
    assert [
        opened.run(f"{alpha}({spot})") for spot in ("0, .5, .5", "0, .1, .5", "1, .1, .9", "1, .5, .5")
    ] == [
        105,
        0,
        105,
        0,
    ]


def test_keys_switch_masks_off_and_on(opened: Browser) -> None:
    hidden = "[...document.querySelectorAll('#content canvas.mask')].map(c => c.hidden)"
    opened.press("2")
    assert opened.run(hidden) == [False, True]
    opened.press("m")
    assert opened.run(hidden) == [True, True]
    opened.press("m")
    assert opened.run(hidden) == [False, False]


def test_the_slider_noises_the_region_and_nothing_else(opened: Browser) -> None:
    opened.press("n")
    opened.wait("document.querySelector('.slider output').textContent")
    opened.run(
        "void (s = document.querySelector('.slider input'), s.value = 900,"
        " s.dispatchEvent(new Event('input')))"
    )
    opened.wait("document.querySelector('.slider output').textContent.startsWith('step 900')")
    assert text(opened, ".slider output") == "step 900: signal × 0.36, noise σ 0.93"
    # Far outside of both masks the preview is the picture; inside it is not. 504 x 336 is the model's scale.
    differences = opened.run("""(() => {
      const canvas = document.querySelector('figure canvas[role=img]'), { width, height } = canvas;
      const plain = mfpo.newCanvas(width, height);
      plain.getContext('2d').drawImage(document.querySelector('#content img'), 0, 0, width, height);
      const [a, b] = [canvas, plain].map(c => c.getContext('2d').getImageData(0, 0, width, height).data);
      const mean = (x0, x1, y0, y1) => { let sum = 0, n = 0;
        for (let y = y0; y < y1; y++) for (let x = x0; x < x1; x++) for (let c = 0; c < 3; c++, n++)
          sum += Math.abs(a[4 * (y * width + x) + c] - b[4 * (y * width + x) + c]);
        return sum / n; };
      return [width, height, mean(0, 100, 0, 200), mean(150, 350, 110, 230)]; })()""")
    assert differences[:2] == [504, 336]
    assert differences[2] == 0 and differences[3] > 30


@pytest.mark.parametrize(
    ("number", "views", "words"),
    [
        (1, ["Exact", "Noise slider"], "noise on the regions of the keywords: step 500"),
        (2, ["Exact", "Noise slider"], "noise on the whole picture"),
        (3, ["Exact", "Noise slider"], "random box of 20% of the picture: step 900"),
        (4, ["Exact"], "a random crop"),
        (5, ["Exact"], "filled from their surroundings"),
        (6, ["Exact"], "a black picture"),
        (7, ["Exact", "Stored"], "stored with the row"),
    ],
)
def test_every_scope_is_shown_and_put_in_words(
    opened: Browser, number: int, views: list[str], words: str
) -> None:
    show(opened, number)
    assert (
        opened.run("[...document.querySelectorAll('.figures .segmented button')].map(b => b.textContent)")
        == views
    )
    assert words in text(opened, ".facts")
    assert opened.console == []


def test_a_fallback_is_explained(opened: Browser) -> None:
    show(opened, 8)
    assert "all regions are too large" in text(opened, ".facts")
    assert "too large: 80%" in text(opened, ".legend") and "not found" in text(opened, ".legend")
    show(opened, 2)
    assert "Why not the regions" not in text(opened, ".facts")


def test_a_broken_picture_leaves_the_texts_and_is_counted(opened: Browser) -> None:
    show(opened, 9)
    assert "gone.png" in text(opened, ".problem") and "spoon" in text(opened, ".answers")
    assert "1 with pictures that cannot be read" in text(opened, ".bar")


def test_turns_and_the_perturbed_one_of_several_images_are_named(opened: Browser) -> None:
    show(opened, 10)
    assert text(opened, ".turns") == "User [image 1] [image 2] Compare.Model They differ.User How?"
    assert text(opened, "figcaption") == "Image 2 of 2the one perturbed, 96 × 64"
    opened.run("document.querySelector('.strip button').click()")
    assert text(opened, "figcaption") == "Image 1 of 296 × 64"


def test_filters_sort_and_address(opened: Browser, page: Path) -> None:
    opened.run("void (all = mfpo.state().found)")
    cases = [
        ({"scope": "random"}, [3]),
        ({"status": "too-large"}, [8]),
        ({"status": "fallback"}, [8]),
        ({"status": "broken"}, [9]),
        ({"q": "they DIFFER"}, [10]),
        ({"keyword": "tab", "max": "40"}, [8, 9]),
        ({"min": "40"}, [1, 2, 3, 4, 5, 6, 7, 10]),
        ({"column": "origin", "value": "VG"}, [2, 3]),
        ({"q": "nothing like it"}, []),
    ]
    for fields, expected in cases:
        for name, value in fields.items():
            fill(opened, name, value)
        assert shown(opened) == expected, fields
        opened.run("document.getElementById('clear').click()")
    fill(opened, "sort", "area")
    assert shown(opened)[:2] == [8, 9]
    opened.run("document.getElementById('down').click()")
    assert shown(opened)[-2:] == [8, 9]
    fill(opened, "scope", "crop")
    fragment = opened.run("location.hash").removeprefix("#")
    open_page(opened, page, fragment)
    assert text(opened, "#count") == "1 of 10"
    assert opened.run("document.querySelector('[name=scope]').value") == "crop"
    assert text(opened, "#active") == "1 on"


def test_keys_walk_through_rows_and_views(opened: Browser) -> None:
    ids = state(opened)["found"]
    for key, place in (("j", 1), ("ArrowDown", 2), ("k", 1), ("End", 9), ("j", 9), ("Home", 0)):
        opened.press(key)
        assert state(opened)["current"] == ids[place], key
    for key, view in (("v", "grid"), ("v", "rows"), ("s", "statistics"), ("s", "rows")):
        opened.press(key)
        assert state(opened)["view"] == view
    opened.press("/")
    assert opened.run("document.activeElement.name") == "q"
    opened.press("j")
    assert state(opened)["current"] == ids[0]
    opened.press("Escape")
    opened.press("?")
    assert opened.run("document.getElementById('help').open")


def test_verdicts_are_kept_brought_out_and_in(opened: Browser, page: Path) -> None:
    ids = state(opened)["found"]
    opened.press("g")
    opened.press("j")
    opened.press("b")
    opened.run(
        "void (n = document.getElementById('note'), n.value = 'wrong <b>mug</b>',"
        " n.dispatchEvent(new Event('input')))"
    )
    lines = opened.run("mfpo.verdicts.toLines()").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": ids[0], "verdict": "good", "note": ""},
        {"id": ids[1], "verdict": "bad", "note": "wrong <b>mug</b>"},
    ]
    opened.open(page)
    opened.wait("document.body.dataset.ready")
    assert text(opened, "#verdicts") == "2"
    fill(opened, "verdict", "bad")
    assert state(opened)["found"] == [ids[1]]
    more = f'{{"id": "{ids[2]}", "verdict": "bad"}}\n[1]\n{{"id": "{ids[3]}", "verdict": "maybe"}}\n'
    assert opened.run(f"mfpo.verdicts.fromLines({json.dumps(more)})") == {"taken": 1, "refused": 2}
    assert json.loads(opened.run("mfpo.verdicts.toLines()").splitlines()[-1])["id"] == ids[2]


def test_given_verdicts_show_again(dataset: Path, tmp_path: Path, page: Path, tab: Browser) -> None:
    open_page(tab, page)
    identifier = state(tab)["found"][3]
    write_jsonl(tmp_path / "v.jsonl", [{"id": identifier, "verdict": "bad", "note": "blurred"}])
    run(BrowseConfig(str(dataset), output_file=str(tmp_path / "p.html"), verdicts=str(tmp_path / "v.jsonl")))
    open_page(tab, tmp_path / "p.html", "verdict=bad")
    assert state(tab)["found"] == [identifier]
    assert tab.run("document.getElementById('note').value") == "blurred"


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("view", ["rows", "grid", "statistics"])
def test_nothing_is_wider_than_the_window(opened: Browser, width: int, view: str) -> None:
    opened.size(width, 800)
    opened.run(f"document.querySelector('[data-to={view}]').click()")
    assert opened.run("document.documentElement.scrollWidth <= innerWidth")


def test_controls_have_names(opened: Browser) -> None:
    """Every control says what it is to those who cannot see it."""
    nameless = opened.run("""[...document.querySelectorAll(
      'button, input, select, canvas[role=img], [role=listbox], img')]
      .filter(e => !(e.closest('label') ?? e).textContent.trim() && !e.ariaLabel && !e.title
        && !(e.tagName === 'IMG' && e.hasAttribute('alt'))).map(e => e.outerHTML.slice(0, 80))""")
    assert nameless == []


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose every text is an attack, its name included."""
    folder = tmp_path_factory.mktemp("hostile") / "a<img src=x onerror=alert(9)>"
    pairs = []
    for seed in range(3):
        pair = make_pair(f"A mug. {ATTACK}", f"A bowl. {ATTACK}", ATTACK, keywords=(ATTACK, "mug"), seed=seed)
        source = ImageSource(f"{ATTACK}.png", pair.images[0].data if seed else b"broken")
        extra = {ATTACK: f"{ATTACK}{seed}", "__proto__": f"{seed}", "constructor": "x"}
        status = (RegionStatus(ATTACK, "found", 0.25, 0.9), RegionStatus("mug", "not-found"))
        prompt = [{"role": ATTACK, "content": pair.prompt[0]["content"]}, *pair.prompt]
        pairs.append(
            replace(
                pair,
                id=f"{ATTACK}{seed}",
                images=(source, source),
                prompt=prompt,
                extra=extra,
                region_status=status,
            )
        )
    with DatasetWriter(folder) as writer:
        for pair in pairs:
            writer.write(pair)
        writer.skip(Skip(ATTACK, ATTACK, ATTACK))
    write_jsonl(folder / "verdicts.jsonl", [{"id": pairs[1].id, "verdict": "bad", "note": ATTACK}])
    return folder


@pytest.mark.parametrize("kind", ["output_file", "output_dir"])
def test_no_text_of_a_dataset_ever_runs(hostile: Path, tmp_path: Path, tab: Browser, kind: str) -> None:
    target: dict[str, Any] = {kind: str(tmp_path / "page.html")}
    run(BrowseConfig(str(hostile), verdicts=str(hostile / "verdicts.jsonl"), **target))
    open_page(tab, tmp_path / "page.html" / "index.html" if kind == "output_dir" else tmp_path / "page.html")
    assert text(tab, "title") == hostile.name
    for key in "jnnm12gbjnkvmv?":
        tab.press(key)
        tab.run("new Promise(done => setTimeout(done, 30))")
    tab.run("document.getElementById('help').close()")
    assert "</script><script>window.__pwned" in text(tab, ".answers")
    for name, value in (("column", ATTACK), ("value", f"{ATTACK}1"), ("keyword", ATTACK), ("q", ATTACK)):
        fill(tab, name, value)
    assert len(state(tab)["found"]) == 1
    tab.press("s")
    assert "alert(1)" in text(tab, "#statistics")
    tab.run("new Promise(done => setTimeout(done, 100))")
    assert tab.run("window.__pwned === undefined && ({}).x === undefined")
    assert (tab.console, tab.dialogs) == ([], [])
    assert (
        tab.run("document.querySelectorAll('[onerror], [onload], #content svg, #content script').length") == 0
    )
    assert all(address.startswith(tmp_path.as_uri()) for address in tab.requests)


def test_the_policy_would_stop_a_script_that_slipped_through(page: Path, tab: Browser) -> None:
    open_page(tab, page)
    with pytest.raises(AssertionError, match="TrustedHTML"):
        tab.run("document.body.innerHTML = '<img src=x onerror=alert(1)>'")
    with pytest.raises(AssertionError, match="Trusted"):
        tab.run(
            "void (s = document.createElement('script'), s.textContent = 'window.__pwned = 1',"
            " document.body.append(s))"
        )
    assert tab.run("window.__pwned") is None


def test_the_browser_check_sees_errors_scripts_and_dialogs(tmp_path: Path, tab: Browser) -> None:
    path = tmp_path / "bad.html"
    path.write_text(f"<!doctype html><script>nothing.here()</script>{ATTACK}", encoding="utf-8")
    tab.open(path)
    assert tab.run("window.__pwned") == 1
    assert "1" in tab.dialogs and any("nothing is not defined" in line for line in tab.console)
