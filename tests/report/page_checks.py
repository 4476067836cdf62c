"""Pages as a browser and a parser see them, and the made-up data they are tested with."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
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
    assistant_message,
    row_id,
    user_message,
)

SCRIPT = "<script>document.title='hacked'</script>"
ATTRIBUTE = '"><img src=x onerror="document.title=\'hacked\'">'
TEMPLATE = "{{ 7 * 7 }}{% raw %}</style></title>"
HOSTILE = f"{SCRIPT} {ATTRIBUTE} {TEMPLATE}"


@dataclass
class Page(HTMLParser):
    """What is on a page.

    Attributes:
        tags: Every element with its attributes.
        text: All text outside of styles and scripts.
    """

    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""
    _raw: bool = False

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.text += data

    def named(self, tag: str, style: str = "") -> list[dict[str, str]]:
        """Attributes of the elements of a name, and of a class."""
        return [
            a for name, a in self.tags if name == tag and (not style or style in a.get("class", "").split())
        ]


def parse(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def assert_self_contained(path: Path) -> Page:
    """Nothing on the page loads anything, and nothing but the page's own script runs; data are no scripts."""
    page = parse(path)
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "srcset", "data", "poster", "action"):
                assert value.startswith(("data:", "#")), (tag, name, value[:80])
    (style,) = re.findall(r"<style.*?>(.*?)</style>", path.read_text(encoding="utf-8"), re.DOTALL)
    assert not re.search(r"@import|url\(", style)
    assert len([a for a in page.named("script") if a.get("type") != "application/json"]) == 1
    assert any(a.get("http-equiv") == "Content-Security-Policy" for a in page.named("meta"))
    return page


def rows_of(page: Path) -> list[dict[str, Any]]:
    """Rows of a page of ``mfpo browse``, as its script reads them."""
    chunks = sorted((page.parent / "rows").glob("*.js"))
    if page.name == "index.html":
        calls = (
            re.fullmatch(r'mfpo\.receive\("rows", \d+, (.*)\);\n', path.read_text("utf-8")) for path in chunks
        )
        texts = [json.loads(call[1]) for call in calls if call]
    else:
        texts = re.findall(r'class="rows">(.*?)</script>', page.read_text(encoding="utf-8"))
    return [row for text in texts for row in json.loads(text)]


def picture(size: tuple[int, int] = (96, 64), seed: int = 0) -> ImageSource:
    """A small encoded picture."""
    pixels = np.random.default_rng(seed).integers(0, 255, size=(4, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(buffer, "PNG")
    return ImageSource(f"photo-{seed}.png", buffer.getvalue())


def make_pair(
    chosen: str = "A red mug stands on a table.",
    rejected: str = "A blue bowl stands on a table.",
    prompt: str = "What do you see?",
    keywords: tuple[str, ...] = ("mug", "table"),
    noise: Noise | None = None,
    seed: int = 0,
) -> PreferencePair:
    """A row whose first keyword has a region and whose others have none."""
    image = picture(seed=seed)
    mask = np.zeros((64, 96), dtype=bool)
    mask[16:48, 24:72] = True
    texts = user_message(prompt), assistant_message(chosen), assistant_message(rejected)
    found = tuple(
        Keyword(word, 1.0 - rank / 10, tuple(m.span() for m in re.finditer(re.escape(word), chosen)))
        for rank, word in enumerate(keywords)
    )
    regions = (Region(keywords[0], box_of(mask), 0.9, encode_rle(mask), (64, 96)),) if keywords else ()
    return PreferencePair(
        row_id([image.read()], *texts), (image,), *texts, found, regions, noise or Noise(seed=seed)
    )


def write_dataset(folder: Path, pairs: list[PreferencePair]) -> Path:
    with DatasetWriter(folder) as writer:
        for pair in pairs:
            writer.write(pair)
    return folder
