"""What the page knows of a row. The fields' names are the keys of the JSON that the page's script reads.

A row comes in two parts. [`BrowseRow`] is small: texts and numbers that lists and filters need, loaded for
all rows. [`RowPictures`] holds images and masks, loaded when a row is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

from mfpo.records import Box

Piece = str | tuple[str, int, int]
"""A stretch of text: as it is, or with the number of its keyword (-1 for none) and whether it differs (0, 1)
from the other answer."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A message of the prompt.

    Attributes:
        role: ``system``, ``user`` or ``assistant``.
        text: Its text, with ``[image 2]`` where an image stands if there are several.
    """

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class KeywordEntry:
    """A keyword and what became of its search.

    Attributes:
        text: The keyword.
        score: Its rank; None where it is no finite number.
        status: ``found``, ``not-found``, ``too-small`` or ``too-large``.
        words: The same in a sentence.
        share: Share of the picture that it covers, in [0, 1].
        confidence: Confidence of its best region in [0, 1]; None where there is none.
    """

    text: str
    score: float | None
    status: str
    words: str
    share: float
    confidence: float | None


@dataclass(frozen=True, slots=True)
class NoiseEntry:
    """How the rejected image is made.

    Attributes:
        scope: What is done, after all fallbacks.
        words: The same in a sentence.
        fallback: Why it is not what was asked for; empty where it is.
        schedule: Schedule that turns the step into a noise level.
        step: Noise step, 0 to 999; -1 for scopes without noise.
        feather: Share of the picture's shorter side over which the noise fades out around the regions.
        seed: Seed of the row, in decimal; text, since it does not fit into the numbers of a browser.
        image: Which image of the prompt is perturbed, 0-based.
    """

    scope: str
    words: str
    fallback: str
    schedule: str
    step: int
    feather: float
    seed: str
    image: int


@dataclass(frozen=True, slots=True)
class BrowseRow:
    """What lists and filters need of a row.

    Attributes:
        number: 1-based position in the dataset.
        id: The row's id.
        images: Names of the prompt's images.
        problem: Why there are no pictures; empty where there are.
        turns: The prompt.
        chosen: The chosen answer, cut at its marks.
        rejected: The rejected answer, cut at its marks.
        keywords: Keywords by rank.
        share: Share of the perturbed image that the regions cover together, in [0, 1].
        noise: How the rejected image is made.
        entropy: Entropy of the chosen answer under the reference model, None if it was not ranked.
        difficulty: ``easy``, ``medium``, ``hard``; empty if it was not ranked.
        extra: Further columns of the source as (name, value).
    """

    number: int
    id: str
    images: tuple[str, ...]
    problem: str
    turns: tuple[Turn, ...]
    chosen: tuple[Piece, ...]
    rejected: tuple[Piece, ...]
    keywords: tuple[KeywordEntry, ...]
    share: float
    noise: NoiseEntry
    entropy: float | None = None
    difficulty: str = ""
    extra: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of a page.

    Attributes:
        src: ``data:`` URI, or the file's name relative to the page.
        width: Of the original in pixels.
        height: Of the original in pixels.
    """

    src: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class RowPictures:
    """What is loaded when a row is looked at.

    Attributes:
        number: 1-based position of the row in the dataset.
        images: Images of the prompt; None for one that cannot be read.
        masks: For each keyword its mask as compressed run lengths at ``mask_size``; empty where not found.
        place: Likewise, what the noise covers where that is no union of ``masks`` (scope ``random``).
        mask_size: (height, width) of all these masks.
        exact: The rejected image as the model gets it; None where it was not asked for or cannot be made.
        stored: The rejected image that the dataset stores, if it does.
        seen: Part of the perturbed image that the model sees, as (left, top, right, bottom) in shares of its
            sides; None where it sees all of it, or the rejected image was not made.
        seen_words: The same in words.
        view: (width, height) at which the model sees the whole of the perturbed image, for the preview.
    """

    number: int
    images: tuple[Picture | None, ...] = ()
    masks: tuple[str, ...] = ()
    place: str = ""
    mask_size: tuple[int, int] = (0, 0)
    exact: Picture | None = None
    stored: Picture | None = None
    seen: Box | None = None
    seen_words: str = ""
    view: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class PageSettings:
    """What the page's script is told once.

    Attributes:
        title: Name of the dataset.
        key: Identifies the dataset; verdicts are kept in the browser under it.
        total: Rows of the dataset.
        rows: Rows on the page.
        chunk: Rows in a file of small parts; 0 where all is in one file.
        pictures_chunk: Rows in a file of pictures and masks.
        signal: By schedule, sqrt(abar_t) of every step.
        mean: By colour, the processor's mean in 0..255.
        spread: By colour, the processor's standard deviation in 0..255.
        colours: Of keywords by rank, ``#rrggbb``.
        verdicts: Verdicts that came with ``--verdicts``, as (id, verdict, note).
    """

    title: str
    key: str
    total: int
    rows: int
    chunk: int
    pictures_chunk: int
    signal: dict[str, list[float]]
    mean: tuple[float, float, float]
    spread: tuple[float, float, float]
    colours: tuple[str, ...]
    verdicts: tuple[tuple[str, str, str], ...] = ()
