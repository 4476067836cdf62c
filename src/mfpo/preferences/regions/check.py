"""Compare the regions of a dataset with boxes that people drew: ``mfpo build --check_regions``."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mfpo.data.annotations import Annotations
from mfpo.data.files import atomic_path, write_json
from mfpo.data.folder import PreferenceDataset
from mfpo.data.images import open_image
from mfpo.errors import RowError, Skip, counted
from mfpo.preferences.regions.given import GivenRegions
from mfpo.preferences.regions.masks import union_mask
from mfpo.records import ImageSource, PreferencePair, Region

RIGHT_INSIDE = 0.5
"""Share of a mask that must lie inside the given boxes for it to be right."""
_COLOUR = (255, 64, 64)
_SIDE = 640


@dataclass(frozen=True, slots=True)
class Comparison:
    """A keyword's regions beside the boxes given for it.

    Attributes:
        number: 0-based position of the row.
        image: Name of its picture.
        keyword: The keyword.
        found: Whether the backend found it.
        inside: Share of the mask that lies inside the boxes, in [0, 1]; 0 if it was not found.
        covered: Share of the boxes that the mask covers, in [0, 1].
        score: Confidence of the backend.
    """

    number: int
    image: str
    keyword: str
    found: bool
    inside: float
    covered: float
    score: float

    @property
    def right(self) -> bool:
        """Whether the region is of the keyword, see [`RIGHT_INSIDE`]."""
        return self.found and self.inside >= RIGHT_INSIDE


@dataclass(frozen=True, slots=True)
class RegionReport:
    """How the regions of a dataset agree with given boxes.

    Attributes:
        keywords: Keywords for which there are boxes.
        found: How many of them the backend found.
        right: How many of the found ones are right.
        interval: 95% Wilson interval of ``right / found``.
        worst: The comparisons with the smallest share inside, found ones first.
        unusable: Pictures whose annotations could not be used, by their names, each with the reason.
    """

    keywords: int
    found: int
    right: int
    interval: tuple[float, float]
    worst: tuple[Comparison, ...]
    unusable: tuple[Skip, ...] = ()

    @property
    def share(self) -> float:
        """Share of the found keywords whose region is right; 0 if none was found."""
        return self.right / self.found if self.found else 0.0


def check_regions(
    dataset: PreferenceDataset,
    annotations: Annotations,
    output_dir: Path,
    *,
    image_dir: Path | None = None,
    worst: int = 24,
) -> RegionReport:
    """Compare found regions with given boxes, and draw those that agree least.

    A box is a keyword's as in [`mfpo.preferences.regions.given.GivenRegions`]. The paper's authors looked at
    the regions of their data and found 90% right; a mask is right here if at least half of it lies inside the
    boxes, which a mask of the wrong object hardly does.

    Args:
        dataset: The dataset.
        annotations: Boxes or masks by picture.
        output_dir: Gets ``report.json`` and ``worst/*.png``.
        image_dir: Folder that the names of pictures are relative to, where it is known; it tells apart
            pictures of one name that are annotated under several folders.
        worst: How many pictures are drawn.
    """
    given = _GivenBoxes(GivenRegions(annotations), image_dir)
    comparisons: list[Comparison] = []
    unusable: dict[str, Skip] = {}
    for number, row in enumerate(dataset):
        try:
            comparisons += _compare(number, row, given)
        except RowError as error:  # annotations of another picture say nothing about this one
            name = row.images[row.noise.image].path or ""
            unusable.setdefault(name, Skip(name, error.reason, error.detail))
    report = _report(comparisons, list(unusable.values()), worst)
    shutil.rmtree(output_dir / "worst", ignore_errors=True)  # those of an earlier check
    for rank, entry in enumerate(report.worst, start=1):
        row = dataset[entry.number]
        with atomic_path(output_dir / "worst" / f"{rank:03d}-{row.id}.png") as path:
            _drawn(row, entry, given).save(path, format="PNG")
    entries = [{**asdict(entry), "right": entry.right} for entry in comparisons]
    write_json(output_dir / "report.json", {**asdict(report), "share": report.share, "all": entries})
    return report


def told(report: RegionReport, folder: Path) -> str:
    """A report in a sentence or two, for people.

    Args:
        report: The report.
        folder: Where it lies.
    """
    reasons = Counter(skip.reason for skip in report.unusable)
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    lost = f"annotations of {counted(len(report.unusable), 'picture')} could not be used ({counts})"
    if report.keywords:
        low, high = report.interval
        return (
            f"regions checked: {report.keywords} keywords have given boxes, {report.found} were found, "
            f"{report.right} of them right ({report.share:.0%}, 95% interval {low:.0%} to {high:.0%}); "
            f"the worst are in {folder / 'worst'}" + (f"; {lost}" if reasons else "")
        )
    if reasons:
        ambiguous = "ambiguous-annotation" in reasons
        cure = "\n  fix: name the folder of the images with --image_dir" if ambiguous else ""
        return f"WARNING: no region was checked: the {lost}; the first: {report.unusable[0].detail}{cure}"
    return (
        "WARNING: no region was checked: no picture has a box whose label fits one of its keywords\n"
        "  fix: see whether --annotations names the pictures as the rows do"
    )


def _report(comparisons: Sequence[Comparison], unusable: Sequence[Skip], worst: int) -> RegionReport:
    found = [entry for entry in comparisons if entry.found]
    right = sum(entry.right for entry in found)
    return RegionReport(
        keywords=len(comparisons),
        found=len(found),
        right=right,
        interval=wilson_interval(right, len(found)),
        worst=tuple(sorted(comparisons, key=_agreement)[:worst]),
        unusable=tuple(unusable),
    )


def wilson_interval(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a share.

    Args:
        hits: Successes.
        count: Trials; (0, 1) for none.
        z: Quantile of the normal distribution.
    """
    if not count:
        return 0.0, 1.0
    share, weight = hits / count, z * z / count
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * np.sqrt(share * (1 - share) / count + weight / (4 * count))
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


@dataclass(frozen=True, slots=True)
class _GivenBoxes:
    """The boxes that are given for keywords of a row.

    Attributes:
        regions: The boxes and masks.
        image_dir: See [`check_regions`].
    """

    regions: GivenRegions
    image_dir: Path | None

    def of(self, source: ImageSource, picture: Image.Image, keyword: str) -> list[Region]:
        """The boxes of a keyword in a picture.

        Raises:
            RowError: See [`GivenRegions.segment`].
        """
        return self.regions.segment(picture, [keyword], name=self._name(source))

    def _name(self, source: ImageSource) -> str | None:
        """The picture's whole path where it is known: rows keep no more of it than ``image_dir`` lacks."""
        if self.image_dir is None or source.path is None:
            return source.path
        whole = (self.image_dir / source.path).absolute()
        return str(whole) if whole.is_file() else source.path


def _compare(number: int, row: PreferencePair, given: _GivenBoxes) -> list[Comparison]:
    """The keywords of a row that have boxes.

    Raises:
        RowError: The picture's annotations cannot be used.
    """
    source = row.images[row.noise.image]
    picture = open_image(source)
    size = picture.height, picture.width
    found: list[Comparison] = []
    for keyword in row.keywords:
        boxes = given.of(source, picture, keyword.text)
        if not boxes:
            continue
        own = [region for region in row.regions if region.keyword == keyword.text]
        mask, truth = union_mask(own, size), union_mask(boxes, size)
        common = float((mask & truth).sum())
        comparison = Comparison(
            number=number,
            image=source.path or "",
            keyword=keyword.text,
            found=bool(own),
            inside=common / max(float(mask.sum()), 1.0),
            covered=common / max(float(truth.sum()), 1.0),
            score=max((region.score for region in own), default=0.0),
        )
        found.append(comparison)
    return found


def _agreement(entry: Comparison) -> tuple[bool, bool, float, float]:
    """Wrong regions come first, then those that were not found, then the rest."""
    return entry.right, not entry.found, entry.inside, entry.covered


def _drawn(row: PreferencePair, entry: Comparison, given: _GivenBoxes) -> Image.Image:
    """The picture with the mask in colour, the given boxes as outlines and a line of text below."""
    source = row.images[row.noise.image]
    picture = open_image(source)
    boxes = given.of(source, picture, entry.keyword)
    own = [region for region in row.regions if region.keyword == entry.keyword]
    mask = union_mask(own, (picture.height, picture.width))
    pixels: NDArray[np.float64] = np.asarray(picture, dtype=np.float64).copy()
    pixels[mask] = 0.45 * pixels[mask] + 0.55 * np.array(_COLOUR)
    scale = _SIDE / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    shown = Image.fromarray(pixels.astype(np.uint8)).resize(size)
    sheet = Image.new("RGB", (size[0], size[1] + 26), "white")
    sheet.paste(shown)
    draw = ImageDraw.Draw(sheet)
    for region in boxes:
        draw.rectangle([value * scale for value in region.box], outline="white", width=4)
        draw.rectangle([value * scale for value in region.box], outline="black", width=2)
    verdict = "right" if entry.right else "wrong" if entry.found else "not found"
    shares = f"{entry.inside:.0%} of the mask inside, {entry.covered:.0%} of the boxes covered"
    text = f"{entry.keyword}: {verdict}, {shares}"
    draw.text((6, size[1] + 5), text, fill="black", font_size=14)
    return sheet
