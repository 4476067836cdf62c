"""Put the tables of experiments into findings.md as `mfpo experiment` wrote them.

    python docs/make_findings.py runs/experiments

Every experiment in the folder whose title is a heading of the page takes the place of the tables under that
heading; the text before the tables is left as it is. Its figure goes to `images/findings`, its numbers, those
of every seed included, to `findings`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from PIL import Image

from mfpo.data.files import write_json

HERE = Path(__file__).parent
PAGE = HERE / "findings.md"


def main(folder: Path) -> None:
    """Put in what is there, and say what."""
    text = PAGE.read_text(encoding="utf-8")
    for source in sorted(folder.glob("*/table.md")):
        name = source.parent.name
        title, *parts = plain(source.read_text(encoding="utf-8")).strip().split("\n\n")
        heading = title.replace("## ", "### ", 1)
        section = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^##)", text, re.DOTALL | re.MULTILINE)
        if section is None:
            print(f"{name}: no heading {heading!r} in {PAGE.name}")
            continue
        copy_beside(name, source.parent)
        words = re.split(r"^\|", section[1], maxsplit=1, flags=re.MULTILINE)[0].strip()
        made = "\n\n".join(part for part in (words, *blocks(name, title.removeprefix("## "), parts)) if part)
        text = text[: section.start()] + f"{heading}\n\n{made}\n\n" + text[section.end() :]
        print(f"{name}: put in")
    PAGE.write_text(text, encoding="utf-8")


def copy_beside(name: str, folder: Path) -> None:
    """Numbers and figure of an experiment, for the page to link to."""
    (HERE / "findings").mkdir(exist_ok=True)
    content = json.loads(plain((folder / "results.json").read_text(encoding="utf-8")))
    write_json(HERE / "findings" / f"{name}.json", content)
    if (folder / "figure.png").is_file():
        figure = Image.open(folder / "figure.png").convert("RGB")
        figure.save(HERE / "images" / "findings" / f"{name}.png", optimize=True)


def plain(text: str) -> str:
    """Without the folders that a command was given, which are a matter of one machine."""
    return re.sub(r" --(output_dir|cache_dir) [^\s`\"]+", "", text)


def blocks(name: str, title: str, parts: list[str]) -> list[str]:
    """Tables, the figure, and the remarks as a list."""
    tables = [part for part in parts if part.startswith("|")]
    remarks = [f"- {part}" for part in parts if not part.startswith("|")]
    remarks.append(f"- The numbers of every seed: [{name}.json](findings/{name}.json).")
    figure = [f"![{title}](images/findings/{name}.png)"]
    return [
        *tables,
        *(figure if (HERE / "images" / "findings" / f"{name}.png").is_file() else []),
        "\n".join(remarks),
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
