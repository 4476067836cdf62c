"""The grounding probe: is the right caption preferred on each of two pictures that differ in one object?

No noise is involved, so a model that has learned to detect noise gains nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol

from tqdm import tqdm

from mfpo.errors import UserError
from mfpo.evaluation.pair_scores import score_pairs
from mfpo.evaluation.results import ScoreResult, score_result
from mfpo.evaluation.statistics import Metric
from mfpo.models.load import VLM
from mfpo.models.vision import ImageInputs
from mfpo.preferences.encoding import EncodedRow, RowEncoder
from mfpo.records import ImageSource, Messages, PreferencePair, assistant_message

if TYPE_CHECKING:
    from PIL.Image import Image


class EditedImage(Protocol):
    """A picture, two edits of it, and captions: an item of the grounding probe."""

    @property
    def id(self) -> str:
        """Unique name."""

    @property
    def prompt(self) -> Messages:
        """A request for a description."""

    @property
    def image(self) -> Image:
        """The picture."""

    @property
    def swapped_image(self) -> Image:
        """The picture with one object replaced by another."""

    @property
    def removed_image(self) -> Image:
        """The picture without that object."""

    @property
    def caption(self) -> str:
        """True of ``image``."""

    @property
    def swapped_caption(self) -> str:
        """True of ``swapped_image``."""


GROUNDING_METRICS = {
    "swap_accuracy": Metric(
        "swap_right", "items", better="higher", text="swapped picture: its own caption is the likelier one"
    ),
    "clean_accuracy": Metric(
        "clean_right", "items", better="higher", text="original picture: its own caption is the likelier one"
    ),
    "pair_accuracy": Metric("pair_right", "items", better="higher", text="both of them"),
    "removal_accuracy": Metric(
        "removal_right",
        "items",
        better="higher",
        text="the caption is likelier with the picture than without the object",
    ),
    "swap_gap": Metric(
        "swap_gap", "items", scale=1, better="higher", text="log-probability, own caption minus other"
    ),
    "clean_gap": Metric(
        "clean_gap", "items", scale=1, better="higher", text="the same for the original picture"
    ),
    "removal_gap": Metric(
        "removal_gap", "items", scale=1, better="higher", text="log-probability lost by removal"
    ),
    "caption_logp": Metric(
        "caption_logp", "items", scale=1, better="higher", text="log-probability of the caption"
    ),
}


def grounding(
    vlm: VLM,
    items: Iterable[EditedImage],
    *,
    batch_size: int = 32,
    total: int | None = None,
    progress: bool = True,
) -> ScoreResult:
    """Whether the right caption is preferred on each of two drawings that differ in one object.

    Args:
        vlm: The model.
        items: The drawings with their captions, opened one at a time.
        batch_size: Sequences scored at once.
        total: Number of items, if known, for the time left.
        progress: Whether to show a bar.

    Returns:
        ``swap_accuracy``: on the swapped drawing the swapped caption is likelier than the original one; a
        model that names what usually stands there fails. ``clean_accuracy``: on the original drawing, the
        original caption. ``pair_accuracy``: both. ``removal_accuracy``: the caption is likelier on its
        drawing than on the one from which a mentioned object is removed. Gaps in nats.

    Raises:
        UserError: There are no items.
    """
    encoder = RowEncoder(vlm.processor, rejected_image=False)
    records: list[dict[str, Any]] = []

    def rows() -> Iterator[tuple[tuple[dict[str, Any], str], EncodedRow]]:
        for item in tqdm(items, desc="grounding probe", total=total, unit="item", disable=not progress):
            record: dict[str, Any] = {
                "id": item.id,
                "items": 1,
                "caption": item.caption,
                "swapped_caption": item.swapped_caption,
            }
            records.append(record)
            for name, row in _grounding_rows(vlm, encoder, item):
                yield (record, name), row

    for (record, name), logps in score_pairs(vlm, encoder, rows(), batch_size=batch_size):
        record |= {f"{name} chosen": logps.chosen, f"{name} rejected": logps.rejected}
    if not records:
        raise UserError("no item to probe")
    for record in records:
        clean = record["clean chosen"] - record["clean rejected"]
        swap = record["swapped rejected"] - record["swapped chosen"]
        removal = record["clean chosen"] - record["removed chosen"]
        record |= {
            "caption_logp": record["clean chosen"],
            "clean_gap": clean,
            "swap_gap": swap,
            "removal_gap": removal,
            "clean_right": int(clean > 0),
            "swap_right": int(swap > 0),
            "pair_right": int(clean > 0 and swap > 0),
            "removal_right": int(removal > 0),
        }
    return score_result("grounding", records, GROUNDING_METRICS, {})


def _grounding_rows(vlm: VLM, encoder: RowEncoder, item: EditedImage) -> Iterator[tuple[str, EncodedRow]]:
    """The item as rows (y_w is the original caption, y_l the swapped one), one per drawing."""
    png = BytesIO()
    item.image.save(png, format="PNG", compress_level=1)
    row = encoder.encode(
        PreferencePair(
            id=item.id,
            images=(ImageSource(path=item.id, data=png.getvalue()),),
            prompt=item.prompt,
            chosen=assistant_message(item.caption),
            rejected=assistant_message(item.swapped_caption),
        )
    )
    yield "clean", row
    for name, image in (("swapped", item.swapped_image), ("removed", item.removed_image)):
        tensors = dict(vlm.image_processor(images=[image], return_tensors="pt"))
        yield name, replace(row, image=ImageInputs((item.id, name), tensors))
