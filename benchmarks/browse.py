"""`mfpo browse` with many rows: writing it, and using it in headless Chromium.

    python benchmarks/browse.py --rows 1000 10000

Synthetic rows: pictures of 448 x 336 that all differ, answers of about 60 words, two elliptic regions. The
page is written by the command itself in a process of its own. In the browser are measured, from the start of
the navigation or of the key press to the end of the frame that shows the result: the first row, all rows,
a search in all texts, a step to the next row, and the longest frame while the list is scrolled from end to
end. The peer is what a plain gallery does: the same rows as one HTML page with all rows in it and pictures
that load lazily. The last line is one line of JSON.
"""

from __future__ import annotations

import argparse
import html
import io
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mfpo.data.writer import DatasetWriter
from mfpo.preferences.regions.masks import box_of, encode_rle
from mfpo.records import (
    ImageSource,
    Keyword,
    Noise,
    PreferencePair,
    Region,
    RegionStatus,
    assistant_message,
    user_message,
)
from synthetic_rows import COLOURS, NOUNS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from chromium import Browser, browser

WIDTH, HEIGHT = 448, 336
PATIENCE = 600.0
NEXT_FRAME = "new Promise(done => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep datasets and pages here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        results = [measure(folder, rows, arguments.repeats) for rows in arguments.rows]
    names = [name for name in results[0] if name != "rows"]
    print(f"{'':<34}" + "".join(f"{result['rows']:>10,} rows" for result in results))
    for name in names:
        print(f"{name:<34}" + "".join(f"{result[name]:>15,}" for result in results))
    print(json.dumps({"results": results, "repeats": arguments.repeats}))


def measure(folder: Path, rows: int, repeats: int) -> dict[str, Any]:
    """All figures for a dataset of that many rows; times in milliseconds are medians of the repeats."""
    dataset, page = folder / f"data-{rows}", folder / f"page-{rows}"
    if not (dataset / "manifest.json").is_file():
        with DatasetWriter(dataset) as writer:
            for number in range(rows):
                writer.write(pair(number))
    seconds, mebibytes = write_page(dataset, page)
    size = sum(path.stat().st_size for path in page.rglob("*") if path.is_file())
    plain = plain_gallery(page)
    times: dict[str, list[float]] = {}
    for _ in range(repeats):
        with browser() as tab:
            for name, value in {**use(tab, page / "index.html"), **use_plain(tab, plain)}.items():
                times.setdefault(name, []).append(value)
    medians = {name: round(float(np.median(values)), 1) for name, values in times.items()}
    return {
        "rows": rows,
        "write, s": round(seconds, 1),
        "write, peak private MiB": round(mebibytes),
        "folder, MiB": round(size / 2**20),
        **medians,
        "search, plain gallery / browse": round(
            medians["plain gallery: search, ms"] / medians["search, ms"], 1
        ),
        "first row, plain gallery / browse": round(
            medians["plain gallery: first row, ms"] / medians["first row, ms"], 1
        ),
    }


def pair(number: int) -> PreferencePair:
    """Row number ``number``."""
    generator = np.random.default_rng(number)
    words = [
        f"{c} {n}" for c, n in zip(generator.choice(COLOURS, 14), generator.choice(NOUNS, 14), strict=True)
    ]
    chosen = f"Picture {number}. " + " ".join(f"There is a {word} here." for word in words[:12])
    rejected = chosen.replace(words[3], words[12]).replace(words[7], words[13])
    keywords = tuple(
        Keyword(word, 1 - rank / 10, _spans(chosen, word)) for rank, word in enumerate(words[:5])
    )
    regions = tuple(_region(word, generator) for word in words[:2])
    status = [RegionStatus(r.keyword, "found", 0.1, r.score) for r in regions]
    status += [RegionStatus(word, "not-found") for word in words[2:5]]
    small = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(data, "JPEG", quality=85)
    return PreferencePair(
        f"{number:016x}",
        (ImageSource(f"{number:06d}.jpg", data.getvalue()),),
        user_message(f"What is in picture {number}?"),
        assistant_message(chosen),
        assistant_message(rejected),
        keywords,
        regions,
        Noise(seed=number),
        extra={"origin": f"source {number % 7}"},
        region_status=tuple(status),
    )


def _spans(text: str, word: str) -> tuple[tuple[int, int], ...]:
    start = text.find(word)
    return ((start, start + len(word)),)


def _region(keyword: str, generator: np.random.Generator) -> Region:
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    cx, cy = generator.uniform(0.25, 0.75, 2) * (WIDTH, HEIGHT)
    rx, ry = generator.uniform(40, 110, 2)
    mask = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1
    return Region(keyword, box_of(mask), 0.8, encode_rle(mask), (HEIGHT, WIDTH))


def write_page(dataset: Path, page: Path) -> tuple[float, float]:
    """Seconds and peak memory in MiB of the command.

    Memory is what the process holds for itself; pages of the mapped Parquet files, which the system
    takes back when it needs them, are left out.
    """
    command = [sys.executable, "-m", "mfpo.cli", "browse", "--dataset", str(dataset)]
    command += ["--output_dir", str(page), "--max_rows", "0"]
    start, peak = time.perf_counter(), 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, _private_mebibytes(process.pid))
            time.sleep(0.1)
    if process.returncode:
        sys.exit("mfpo browse failed")
    return time.perf_counter() - start, peak


def _private_mebibytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def use(tab: Browser, page: Path) -> dict[str, float]:
    """Times in the page, in milliseconds, and its heap."""
    tab.size(1280, 860)
    tab.open(page, timeout=PATIENCE)
    tab.wait("document.body.dataset.ready", PATIENCE)
    time.sleep(1)
    marks = tab.run("['row', 'all-rows'].map(name => performance.getEntriesByName(name)[0].startTime)")
    search = tab.run(f"""(async () => {{
      const field = document.querySelector('[name=q]'), start = performance.now();
      field.value = 'red vase';
      field.dispatchEvent(new Event('input', {{ bubbles: true }}));
      const time = await {NEXT_FRAME} - start;
      field.value = '';
      field.dispatchEvent(new Event('input', {{ bubbles: true }}));
      return time; }})()""")
    step = tab.run(f"""(async () => {{
      const times = [];
      for (let i = 0; i < 10; i++) {{
        const start = performance.now(), before = performance.getEntriesByName('row').length;
        document.dispatchEvent(new KeyboardEvent('keydown', {{ key: 'j', bubbles: true }}));
        while (performance.getEntriesByName('row').length === before) await {NEXT_FRAME};
        times.push(await {NEXT_FRAME} - start);
      }}
      return times.sort((a, b) => a - b)[5]; }})()""")
    longest = tab.run(
        f"""(async () => {{
      const list = document.getElementById('list'), end = list.scrollHeight;
      let longest = 0, last = await {NEXT_FRAME};
      for (let i = 0; i <= 100; i++) {{
        list.scrollTop = end * i / 100;
        const now = await {NEXT_FRAME};
        longest = Math.max(longest, now - last);
        last = now;
      }}
      return longest; }})()""",
        PATIENCE,
    )
    tab.call("HeapProfiler.collectGarbage")
    return {
        "first row, ms": marks[0],
        "all rows, ms": marks[1],
        "search, ms": search,
        "next row, ms": step,
        "longest frame when scrolling, ms": longest,
        "heap, MiB": tab.call("Runtime.getHeapUsage")["usedSize"] / 2**20,
        "elements": tab.run("document.querySelectorAll('*').length"),
    }


def plain_gallery(page: Path) -> Path:
    """The same rows as one page with everything in it."""
    target = page.parent / f"{page.name}-plain.html"
    with target.open("w", encoding="utf-8") as file:
        file.write("<!doctype html><meta charset=utf-8><title>plain</title><input id=q>")
        for position, row in enumerate(rows_of(page)):
            chosen, rejected = (
                "".join(html.escape(piece if isinstance(piece, str) else piece[0]) for piece in row[name])
                for name in ("chosen", "rejected")
            )
            images = "".join(
                f'<img loading=lazy width=448 height=336 src="{page.name}/images/{position:06d}-{name}.jpeg">'
                for name in ("image1", "rejected")
            )
            file.write(f"<article><h2>{row['id']}</h2>{images}<p>{chosen}</p><p>{rejected}</p></article>\n")
        file.write("""<script>
          const rows = [...document.querySelectorAll('article')].map(e => [e, e.textContent.toLowerCase()]);
          document.getElementById('q').addEventListener('input', event => {
            for (const [element, text] of rows) element.hidden = !text.includes(event.target.value);
          });</script>""")
    return target


def rows_of(page: Path) -> Iterator[dict[str, Any]]:
    for chunk in sorted((page / "rows").glob("*.js")):
        text = chunk.read_text(encoding="utf-8")
        yield from json.loads(json.loads(text[text.index('"[') : text.rindex(")")]))


def use_plain(tab: Browser, page: Path) -> dict[str, float]:
    """Time until the plain gallery shows its first row, and of a search in it."""
    tab.open(page, timeout=PATIENCE)
    loaded = tab.run("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd", PATIENCE)
    search = tab.run(
        f"""(async () => {{
      const field = document.getElementById('q'), start = performance.now();
      field.value = 'red vase';
      field.dispatchEvent(new Event('input'));
      return await {NEXT_FRAME} - start; }})()""",
        PATIENCE,
    )
    return {"plain gallery: first row, ms": loaded, "plain gallery: search, ms": search}


if __name__ == "__main__":
    main()
