"""Which found regions make a good rejected image, and what became of each keyword."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from mfpo.preferences.regions.masks import box_of, decode_rle, encode_rle, grow, union_share
from mfpo.records import Region, RegionStatus


def select_regions(
    keywords: Sequence[str],
    regions: Sequence[Region],
    size: tuple[int, int],
    *,
    min_share: float,
    max_share: float,
    dilate: float = 0.0,
) -> tuple[list[Region], list[RegionStatus]]:
    """Drop keywords whose regions cover too little or too much of the picture, and grow what is left.

    A keyword counts by the union of its instances: noise on less than a patch says nothing about an object,
    and noise on most of the picture is global noise under another name.

    Args:
        keywords: The row's keywords.
        regions: What was found of them, any number each.
        size: (height, width) of the picture.
        min_share: Share of the picture below which a keyword is ``too-small``, in [0, 1].
        max_share: Share above which it is ``too-large``, in [0, 1].
        dilate: Radius by which masks grow, as a fraction of the picture's shorter side.

    Returns:
        The regions that are left, in the order of the keywords, and one status for each keyword; shares are
        those before masks grow.
    """
    found: defaultdict[str, list[Region]] = defaultdict(list)
    for region in regions:
        found[region.keyword].append(region)
    kept: list[Region] = []
    status: list[RegionStatus] = []
    for keyword in dict.fromkeys(keywords):
        own = found[keyword]
        if not own:
            status.append(RegionStatus(keyword, "not-found"))
            continue
        share = union_share(own, size)
        score = max(region.score for region in own)
        if not share or share < min_share:
            status.append(RegionStatus(keyword, "too-small", share, score))
        elif share > max_share:
            status.append(RegionStatus(keyword, "too-large", share, score))
        else:
            status.append(RegionStatus(keyword, "found", share, score))
            kept += [grown(region, dilate) for region in own] if dilate else own
    return kept, status


def grown(region: Region, fraction: float) -> Region:
    """A region with every pixel added that is at most a radius away from it.

    Args:
        region: The region.
        fraction: Radius as a fraction of the picture's shorter side.
    """
    wider = grow(decode_rle(region.rle, region.size), fraction * min(region.size))
    return replace(region, rle=encode_rle(wider), box=_united(region.box, box_of(wider)))


def _united(
    one: tuple[float, float, float, float], other: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])
