"""Typed rows that pass between the parts of the system.

Messages follow TRL and ``transformers``: a list of ``{"role": ..., "content": [...]}`` whose content parts
are
``{"type": "image"}`` and ``{"type": "text", "text": ...}``. The n-th image part refers to the n-th image of
the row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from mfpo.errors import RowError

Message: TypeAlias = dict[str, Any]
Messages: TypeAlias = list[Message]
Box: TypeAlias = tuple[float, float, float, float]

Scope: TypeAlias = Literal["region", "global", "random", "crop", "erase", "swap", "black"]
Schedule: TypeAlias = Literal["vcd", "ddpm-linear"]
SCOPES: tuple[Scope, ...] = ("region", "global", "random", "crop", "erase", "swap", "black")
SCHEDULES: tuple[Schedule, ...] = ("vcd", "ddpm-linear")


def user_message(text: str, num_images: int = 1) -> Messages:
    """A one-turn prompt: the images first, then the text."""
    parts: list[dict[str, Any]] = [{"type": "image"} for _ in range(num_images)]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def assistant_message(text: str) -> Messages:
    """A one-turn answer."""
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


def text_of(messages: Messages) -> str:
    """All text parts of the messages, joined by newlines; a plain string content counts as one text part."""
    texts = []
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            texts.append(content)
        else:
            texts.extend(part["text"] for part in content if part.get("type") == "text" and part.get("text"))
    return "\n".join(texts)


def in_one_line(pieces: Iterable[str]) -> str:
    """Texts and names of images as they follow each other, set apart by a blank where they would touch.

    Args:
        pieces: The text of each part of a message, or what stands for its image; empty ones are left out.
    """
    line = ""
    for piece in filter(None, pieces):
        touches = line and not line[-1].isspace() and (piece[0].isalnum() or piece[0] == "[")
        line += f" {piece}" if touches else piece
    return line


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An encoded image, in memory or on disk, not yet decoded.

    Attributes:
        path: File it comes from, or the name it had in its source; the key by which annotations are joined.
        data: Its encoded bytes; read from ``path`` when None.
    """

    path: str | None = None
    data: bytes | None = field(default=None, repr=False)

    def read(self) -> bytes:
        """The encoded bytes.

        Raises:
            RowError: The file does not exist (``missing-image``) or cannot be read (``unreadable-image``).
        """
        if self.data is not None:
            return self.data
        if self.path is None:
            raise RowError("missing-image", "the row names no image")
        path = Path(self.path)
        try:
            # A device or a pipe has no end.
            if path.exists() and not path.is_file():
                raise RowError("unreadable-image", f"{self.path} is no file")
            return path.read_bytes()
        except FileNotFoundError:
            raise RowError("missing-image", f"{self.path} does not exist") from None
        except OSError as error:
            raise RowError("unreadable-image", f"{self.path}: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class Sample:
    """A text preference as a source has it, before keywords, regions and noise.

    Attributes:
        images: The images of the prompt, in the order of its image parts.
        prompt: Messages up to the answer.
        chosen: The preferred answer y_w, one assistant message.
        rejected: The dispreferred answer y_l, one assistant message.
        where: File and line or row, for messages to the user.
        extra: Columns of the source that are none of the above, kept as they are (``origin_dataset`` and so
            on).
        rejected_images: Rejected images that the source brings along (scope ``swap``).
        keywords: Keywords that the source brings along; None where it has no such column.
    """

    images: tuple[ImageSource, ...]
    prompt: Messages
    chosen: Messages
    rejected: Messages
    where: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    rejected_images: tuple[ImageSource, ...] = ()
    keywords: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Keyword:
    """A ranked keyword of the chosen answer (paper 3.1).

    Attributes:
        text: The phrase as it first stands in the answer.
        score: Its rank r; larger is more central.
        spans: Character spans (start, end) of every occurrence in the text of ``chosen``.
    """

    text: str
    score: float
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Region:
    """Where a keyword is in the image.

    Attributes:
        keyword: Text of the keyword it belongs to.
        box: xyxy in pixels of the image after EXIF rotation.
        score: Confidence of the backend in [0, 1]; 1 for given annotations.
        rle: The mask as pycocotools compressed counts, decoded to str (column-major, as COCO).
        size: (height, width) of the image after EXIF rotation.
    """

    keyword: str
    box: Box
    score: float
    rle: str
    size: tuple[int, int]


RegionOutcome: TypeAlias = Literal["found", "not-found", "too-small", "too-large"]


@dataclass(frozen=True, slots=True)
class RegionStatus:
    """What became of the search for a keyword.

    Attributes:
        keyword: Text of the keyword.
        status: ``found``, ``not-found``, or why its regions were dropped: ``too-small``, ``too-large``.
        share: Share of the picture that its regions cover together, in [0, 1].
        score: Confidence of the best of them, in [0, 1]; 0 if there is none.
    """

    keyword: str
    status: RegionOutcome
    share: float = 0.0
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Noise:
    """How a row's rejected image is made; the pixels are drawn when the batch is built.

    Attributes:
        scope: ``region`` (the keywords' masks), ``global``, ``random`` (a fraction of the area), ``crop``,
            ``erase``, ``swap`` (the row's own ``rejected_images``) or ``black``.
        schedule: Diffusion schedule that turns ``step`` into a noise level.
        step: 0-based diffusion step t.
        seed: Seed of the draw, a hash of the global seed and the row's id.
        fraction: Share of the area that ``random`` perturbs.
        box: The box that ``crop`` keeps, xyxy in pixels after EXIF rotation.
        image: Which of the row's images is perturbed, and searched for the keywords; 0-based.
        feather: Width over which the noise fades out around ``region`` and ``random``, as a share of the
            picture's shorter side; 0 for a sharp edge.
    """

    scope: Scope = "region"
    schedule: Schedule = "vcd"
    step: int = 500
    seed: int = 0
    fraction: float = 0.2
    box: Box | None = None
    image: int = 0
    feather: float = 0.0


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A row of the dataset contract: a text preference together with its image preference.

    Attributes:
        id: First 16 hex digits of the SHA-256 over images, prompt, chosen and rejected, see [`row_id`].
        images: The images of the prompt.
        prompt: Messages up to the answer.
        chosen: The preferred answer y_w.
        rejected: The dispreferred answer y_l.
        keywords: Ranked keywords of the chosen answer.
        regions: Where they are in the image; empty when nothing was found.
        noise: How the rejected image is made.
        rejected_images: The rejected images themselves, when they are stored (``--materialize``, scope
            ``swap``).
        extra: Other columns of the source.
        region_status: What became of each keyword's search, in the order of ``keywords``.
    """

    id: str
    images: tuple[ImageSource, ...]
    prompt: Messages
    chosen: Messages
    rejected: Messages
    keywords: tuple[Keyword, ...] = ()
    regions: tuple[Region, ...] = ()
    noise: Noise = Noise()
    rejected_images: tuple[ImageSource, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    region_status: tuple[RegionStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's answer to one benchmark item, one line of an answer file.

    Attributes:
        id: The item's id in its benchmark.
        question: What was asked.
        answer: What the model said.
        image: Name of the image file, for people.
        kind: Kind of item within the benchmark (``describe``, ``exists``, ...).
    """

    id: str
    question: str
    answer: str
    image: str = ""
    kind: str = ""

    def to_dict(self) -> dict[str, str]:
        """The record as a JSON object."""
        return asdict(self)


def row_id(images: Sequence[bytes], prompt: Messages, chosen: Messages, rejected: Messages) -> str:
    """First 16 hex digits of the SHA-256 over a row's images, prompt, chosen and rejected.

    Equal rows get equal ids wherever they come from, which is how duplicates are found.
    """
    digest = hashlib.sha256()
    for data in images:
        digest.update(hashlib.sha256(data).digest())
    text = json.dumps([prompt, chosen, rejected], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    digest.update(text.encode())
    return digest.hexdigest()[:16]


def row_seed(seed: int, identifier: str) -> int:
    """A row's own seed: 63 bits of the SHA-256 over the global seed and the row's id.

    It depends on nothing else, so the draw is the same whatever the order of rows or the number of workers.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}:{identifier}".encode()).digest()[:8], "big") >> 1
