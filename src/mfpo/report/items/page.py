"""The items as blocks of JSON on the page, one of items and one of pictures for each benchmark."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from markupsafe import Markup

from mfpo.report.items.records import ItemSection
from mfpo.report.page import embedded_json


@dataclass(frozen=True, slots=True)
class ItemBlocks:
    """The JSON of a benchmark, safe inside script elements; read by the page when the benchmark is chosen.

    Attributes:
        items: What is said of the items, and the items.
        pictures: Their pictures.
    """

    items: Markup
    pictures: Markup


def item_blocks(section: ItemSection) -> ItemBlocks:
    """The blocks of a section."""
    items = {"note": _note(section), "items": [asdict(item) for item in section.items]}
    return ItemBlocks(Markup(embedded_json(items)), Markup(embedded_json(section.pictures)))


def _note(section: ItemSection) -> str:
    """What the order is, and which pictures are here."""
    text = f"Badness in {section.name}: {section.order}. "
    if section.looked < len(section.items):
        text += f"Pictures are on this page for the {section.looked:,} worst items only"
        text += " (--num_pictures). " if section.looked else " (--num_pictures 0). "
    if section.unfound:
        text += (
            f"The pictures of {section.unfound:,} of them were not found or cannot be used; "
            "--data_dir says where they are. "
        )
    return text.rstrip()
