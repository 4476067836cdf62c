"""docs/data.md: its examples are read as it says, its code runs, and no layout is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mfpo.data.layouts.table import LAYOUTS
from mfpo.data.source_config import SourceConfig
from mfpo.data.sources import Source
from mfpo.data.writer import DatasetWriter
from mfpo.records import Sample
from preference_rows import make_pairs

PAGE = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^### ([\w-]+)\n.*?```json\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))


def test_every_layout_has_an_example() -> None:
    assert set(EXAMPLES) == {layout.name for layout in LAYOUTS}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_read_as_its_layout(tmp_path: Path, name: str) -> None:
    row = json.loads(EXAMPLES[name])
    (tmp_path / "p.json").write_text(json.dumps([row]))
    source = Source(SourceConfig(dataset=str(tmp_path / "p.json")))
    (item,) = source.items()
    assert isinstance(item, Sample), item
    found = source.recogniser().layout(row)
    assert found is not None and found.name == name


def test_what_is_exported_for_others_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pairs = make_pairs(3)
    with DatasetWriter("data/mine") as writer:
        for pair in pairs:
            writer.write(pair)
    code = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "swift" in block)
    exec(code, {})
    (tmp_path / "exported/dataset_info.json").write_text(
        re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[-1]
    )
    for name in ("swift.jsonl", "factory.json"):
        rows = list(Source(SourceConfig(dataset=str(tmp_path / "exported" / name))).items())
        assert len(rows) == 3
        for row, pair in zip(rows, pairs, strict=True):
            assert isinstance(row, Sample)
            assert (row.chosen, row.rejected) == (pair.chosen, pair.rejected)
            assert [image.read() for image in row.images] == [image.read() for image in pair.images]
