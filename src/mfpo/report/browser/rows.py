"""A dataset row as the two records that the page gets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from mfpo.data.images import open_image
from mfpo.errors import RowError, UserError
from mfpo.preferences.noise import FEATHERED_SCOPES, NOISY_SCOPES
from mfpo.preferences.regions.masks import decode_rle, encode_rle, union_mask
from mfpo.preferences.rejected import native_mask, picture_of, rejected_inputs, stored_rejected
from mfpo.records import ImageSource, PreferencePair, Region, RegionStatus, in_one_line, text_of
from mfpo.report.browser.records import (
    BrowseRow,
    KeywordEntry,
    NoiseEntry,
    Picture,
    Piece,
    RowPictures,
    Turn,
)
from mfpo.report.browser.words import (
    NOT_SEEN,
    fallback_reason,
    noise_in_words,
    status_in_words,
)
from mfpo.report.crop import seen_in_words, seen_part
from mfpo.report.marks import changed_words, layered
from mfpo.report.rows import shrunk_mask

LONGEST_TEXT = 20_000
LONGEST_EXTRA = 2_000
# Below this size JPEG artefacts are as large as what is drawn.
SMALL = 160

Embed: TypeAlias = Callable[[Image.Image, str], str]
"""Stores an image under a name and returns where the page finds it."""


@dataclass(frozen=True, slots=True)
class Rank:
    """What the reference pass says of a row.

    Attributes:
        entropy: Entropy of the chosen answer.
        difficulty: ``easy``, ``medium`` or ``hard``.
    """

    entropy: float
    difficulty: str


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Makes the records of rows.

    Attributes:
        image_processor: Renders the rejected images as the model gets them.
        image_size: Longer side of images and masks on the page, in pixels.
        exact: Whether the rejected image is rendered.
        asked_scope: Scope that the build was asked for, if that is known.
        ranks: What the reference pass says, by id.
    """

    image_processor: Any
    image_size: int
    exact: bool
    asked_scope: str
    ranks: Mapping[str, Rank]

    def make(self, pair: PreferencePair, number: int, embed: Embed) -> tuple[BrowseRow, RowPictures]:
        """Both records of a row. What cannot be read is left out, and ``problem`` says why.

        Args:
            pair: The row.
            number: Its 1-based position in the dataset.
            embed: Stores its images.
        """
        images, opened, problems = self._images(pair, embed)
        scope, share, pictures = str(pair.noise.scope), 0.0, RowPictures(number, images)
        target = opened.get(pair.noise.image)
        if target is not None:
            try:
                share = float(union_mask(pair.regions, (target.height, target.width)).mean())
                scope, pictures = self._perturbed(pair, target, pictures, embed)
            except (RowError, UserError, ValueError) as error:
                problems.append(str(error))
        elif not problems:
            problems.append(f"the row has no image {pair.noise.image + 1}")
        return self._row(pair, number, scope, share, "; ".join(problems)), pictures

    def _images(
        self, pair: PreferencePair, embed: Embed
    ) -> tuple[tuple[Picture | None, ...], dict[int, Image.Image], list[str]]:
        """Images for the page, the perturbed one as it is, and what went wrong."""
        shown: list[Picture | None] = []
        opened: dict[int, Image.Image] = {}
        problems = []
        for index, source in enumerate(pair.images):
            try:
                picture = open_image(source)
            except RowError as error:
                problems.append(str(error))
                shown.append(None)
                continue
            if index == pair.noise.image:
                opened[index] = picture
            shown.append(self._embedded(picture, f"image{index + 1}", embed))
        return tuple(shown), opened, problems

    def _perturbed(
        self, pair: PreferencePair, target: Image.Image, pictures: RowPictures, embed: Embed
    ) -> tuple[str, RowPictures]:
        """The scope that came out, and the pictures with masks and rejected images."""
        shape = target.height, target.width
        scope = str(pair.noise.scope)
        place = ""
        if scope == "random":
            place = encode_rle(shrunk_mask(native_mask(target.size, (), pair.noise), self.image_size))
        stored = open_image(stored_rejected(pair)) if pair.rejected_images else None
        exact, seen, view = None, None, target.size
        if self.exact:
            made = rejected_inputs(self.image_processor, target, pair.regions, pair.noise, stored)
            rendered = picture_of(self.image_processor, made.inputs)
            scope, view = made.scope, _whole_view(target.size, rendered.size)
            exact = self._embedded(rendered, "rejected", embed, rendered.size)
            seen = seen_part(self.image_processor, target.size)
        masks = tuple(self._mask(keyword.text, pair.regions, shape) for keyword in pair.keywords)
        return scope, RowPictures(
            number=pictures.number,
            images=pictures.images,
            masks=masks,
            place=place,
            mask_size=shrunk_mask(np.zeros(shape, dtype=bool), self.image_size).shape,
            exact=exact,
            stored=self._embedded(stored, "stored", embed) if stored is not None else None,
            seen=seen,
            seen_words=seen_in_words(seen) if seen else "",
            view=view,
        )

    def _mask(self, keyword: str, regions: Sequence[Region], shape: tuple[int, int]) -> str:
        own = [region for region in regions if region.keyword == keyword]
        if not own:
            return ""
        return encode_rle(shrunk_mask(union_mask(own, shape), self.image_size))

    def _embedded(
        self, picture: Image.Image, name: str, embed: Embed, size: tuple[int, int] | None = None
    ) -> Picture:
        width, height = size or picture.size
        if size is None and max(picture.size) > self.image_size:
            picture = picture.copy()
            picture.thumbnail((self.image_size, self.image_size), Image.Resampling.LANCZOS)
        return Picture(embed(picture, name), width, height)

    def _row(self, pair: PreferencePair, number: int, scope: str, share: float, problem: str) -> BrowseRow:
        chosen, rejected = text_of(pair.chosen)[:LONGEST_TEXT], text_of(pair.rejected)[:LONGEST_TEXT]
        spans = [keyword.spans for keyword in pair.keywords]
        rank = self.ranks.get(pair.id)
        return BrowseRow(
            number=number,
            id=pair.id,
            images=tuple(_name(source) for source in pair.images),
            problem=problem,
            turns=tuple(_turns(pair)),
            chosen=_pieces(layered(chosen, spans, changed_words(rejected, chosen))),
            rejected=_pieces(layered(rejected, (), changed_words(chosen, rejected))),
            keywords=_keywords(pair),
            share=share,
            noise=self._noise(pair, scope),
            entropy=_finite(rank.entropy) if rank else None,
            difficulty=rank.difficulty if rank else "",
            extra=tuple(_extra(pair.extra)),
        )

    def _noise(self, pair: PreferencePair, scope: str) -> NoiseEntry:
        noise = pair.noise
        fallback = ""
        if scope != noise.scope:
            fallback = fallback_reason(_known_statuses(pair)) or NOT_SEEN
        elif scope == "global" and self.asked_scope not in ("global", ""):
            fallback = fallback_reason(_known_statuses(pair))
        try:
            words, step = noise_in_words(noise, scope), noise.step if scope in NOISY_SCOPES else -1
        except UserError as error:
            words, step = f"settings that cannot be used: {error.what}", -1
        return NoiseEntry(
            scope=scope,
            words=words,
            fallback=fallback,
            schedule=str(noise.schedule),
            step=step,
            feather=noise.feather if scope in FEATHERED_SCOPES else 0.0,
            seed=str(noise.seed),
            image=noise.image,
        )


def statuses_of(pair: PreferencePair) -> list[RegionStatus]:
    """What became of each keyword, in their order; worked out for rows that do not say it."""
    known = {status.keyword: status for status in pair.region_status}
    return [known.get(keyword.text) or _from_regions(keyword.text, pair.regions) for keyword in pair.keywords]


def _from_regions(keyword: str, regions: Sequence[Region]) -> RegionStatus:
    own = [region for region in regions if region.keyword == keyword]
    if not own:
        return RegionStatus(keyword, "not-found")
    mask = np.logical_or.reduce([decode_rle(region.rle, region.size) for region in own])
    return RegionStatus(keyword, "found", float(mask.mean()), max(region.score for region in own))


def _keywords(pair: PreferencePair) -> tuple[KeywordEntry, ...]:
    return tuple(
        KeywordEntry(
            text=keyword.text,
            score=_finite(keyword.score),
            status=status.status,
            words=status_in_words(status),
            share=_finite(status.share) or 0.0,
            confidence=_finite(status.score) if status.status != "not-found" else None,
        )
        for keyword, status in zip(pair.keywords, _known_statuses(pair), strict=True)
    )


def _known_statuses(pair: PreferencePair) -> list[RegionStatus]:
    """As [`statuses_of`], of rows with damaged run lengths too; their problem says so already."""
    try:
        return statuses_of(pair)
    except ValueError:
        return [RegionStatus(keyword.text, "not-found") for keyword in pair.keywords]


def _whole_view(original: tuple[int, int], seen: tuple[int, int]) -> tuple[int, int]:
    """Size of the whole picture at the scale of the model's view, which may be a crop of it."""
    scale = max(seen[0] / original[0], seen[1] / original[1])
    return max(1, round(original[0] * scale)), max(1, round(original[1] * scale))


def _turns(pair: PreferencePair) -> Iterable[Turn]:
    count = 0
    for message in pair.prompt:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts = []
        for part in parts:
            if part.get("type") == "image":
                count += 1
                texts.append(f"[image {count}]" if len(pair.images) > 1 else "")
            else:
                texts.append(part.get("text") or "")
        yield Turn(str(message["role"]), in_one_line(texts)[:LONGEST_TEXT])


def _pieces(parts: Iterable[tuple[str, int, bool]]) -> tuple[Piece, ...]:
    return tuple(
        text if keyword < 0 and not differs else (text, keyword, int(differs))
        for text, keyword, differs in parts
    )


def _extra(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if value is None or value == "":
            continue
        text = f"{len(value):,} bytes" if isinstance(value, bytes) else str(value)
        yield str(name), text if len(text) <= LONGEST_EXTRA else f"{text[:LONGEST_EXTRA]}…"


def _name(source: ImageSource) -> str:
    return source.path or ""


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
