"""Preference rows to model inputs: tokens of prompt and responses, pixels of both images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mfpo.data.images import open_image
from mfpo.errors import RowError
from mfpo.models.chat import render_prompt, render_response
from mfpo.models.vision import ImageInputs, batch_images
from mfpo.preferences.noise import check_noise, check_step_range, draw_step
from mfpo.preferences.rejected import rejected_inputs, stored_rejected
from mfpo.records import Messages, Noise, PreferencePair, Schedule, Scope, text_of

if TYPE_CHECKING:
    from PIL import Image
    from transformers import ProcessorMixin

SequenceKind: TypeAlias = Literal["chosen", "rejected", "image_rejected"]
SEQUENCES: tuple[SequenceKind, ...] = ("chosen", "rejected", "image_rejected")
"""The three sequences of a row: (m, y_w), (m, y_l) and (m', y_w)."""


class Rows(Protocol):
    """Preference rows: a list, or a dataset folder that reads them when they are asked for."""

    def __len__(self) -> int:
        """Number of rows."""

    def __getitem__(self, index: int, /) -> PreferencePair:
        """A row."""

    def __iter__(self) -> Iterator[PreferencePair]:
        """All rows in their order."""


def row_ids(rows: Rows) -> list[str]:
    """Ids of the rows in their order; a dataset on disk knows them without reading its rows."""
    known: Iterable[str] | None = getattr(rows, "ids", None)
    return [row.id for row in rows] if known is None else list(known)


def light_rows(rows: Rows, *, rejected: bool = True) -> Iterator[PreferencePair]:
    """All rows in their order, without their pictures where they can be read without them.

    Args:
        rows: The rows.
        rejected: Whether stored rejected images are read.
    """
    without_images = getattr(rows, "without_images", None)
    return iter(rows) if without_images is None else without_images(rejected=rejected)


class NoiseSettings(Protocol):
    """Settings of a command that replace the noise of rows, see [`NoiseOverride`]."""

    @property
    def noise_scope(self) -> Scope | None:
        """Where the noise is."""

    @property
    def noise_step(self) -> int | None:
        """Diffusion step, or the smallest one."""

    @property
    def noise_step_max(self) -> int | None:
        """The largest step."""

    @property
    def noise_schedule(self) -> Schedule | None:
        """Noise schedule."""

    @property
    def noise_feather(self) -> float | None:
        """Width over which the noise fades out."""


@dataclass(frozen=True, slots=True)
class NoiseOverride:
    """Settings that replace those a row was built with; None leaves the row's own.

    Attributes:
        scope: Where the noise is.
        step: Diffusion step, or the smallest one that a row may get.
        schedule: Noise schedule.
        step_max: The largest step: each row's is drawn by its seed. None gives every row ``step``.
        feather: Width over which the noise fades out.

    Raises:
        UserError: A setting is out of range, or ``step_max`` stands without ``step`` or below it.
    """

    scope: Scope | None = None
    step: int | None = None
    schedule: Schedule | None = None
    step_max: int | None = None
    feather: float | None = None

    def __post_init__(self) -> None:
        check_step_range(self.step, self.step_max)
        given = {name: getattr(self, name) for name in ("scope", "step", "schedule", "feather")}
        check_noise(replace(Noise(), **{name: value for name, value in given.items() if value is not None}))

    @classmethod
    def of(cls, settings: NoiseSettings, scope: Scope | None = None) -> NoiseOverride:
        """What the settings of a command ask for.

        Args:
            settings: The settings of `mfpo rank` or `mfpo train`.
            scope: Where the noise is if they do not say.
        """
        return cls(
            scope=scope if settings.noise_scope is None else settings.noise_scope,
            step=settings.noise_step,
            schedule=settings.noise_schedule,
            step_max=settings.noise_step_max,
            feather=settings.noise_feather,
        )

    def apply(self, noise: Noise) -> Noise:
        """The noise that a row gets."""
        changes: dict[str, Any] = {
            name: value
            for name in ("scope", "schedule", "feather")
            if (value := getattr(self, name)) is not None
        }
        if self.step is not None:
            changes["step"] = draw_step(self.step, self.step_max, noise.seed)
        return replace(noise, **changes)


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """A preference row, ready to be batched.

    Attributes:
        id: The row's id.
        prompt: Text inputs of the prompt by name, int64 ``[P]`` each, image placeholders expanded.
        chosen: Tokens of y_w, int64 ``[R_w]``.
        rejected: Tokens of y_l, int64 ``[R_l]``.
        image: The original image m.
        rejected_image: The rejected image m', None when it was not asked for.
        cut: How many of the two responses were cut to fit the length.
    """

    id: str
    prompt: dict[str, Tensor]
    chosen: Tensor
    rejected: Tensor
    image: ImageInputs
    rejected_image: ImageInputs | None = None
    cut: int = 0

    @property
    def length(self) -> int:
        """Tokens of the longer of the two sequences."""
        return len(self.prompt["input_ids"]) + max(len(self.chosen), len(self.rejected))

    @property
    def nbytes(self) -> int:
        """Memory that the row takes; its pixels, in effect."""
        return self.image.nbytes + (self.rejected_image.nbytes if self.rejected_image else 0)


class RowEncoder:
    """Encodes rows one by one; a row's encoding depends on nothing but the row and these settings.

    Args:
        processor: The model's processor.
        max_length: Tokens a sequence may have; responses are cut to fit, image tokens and prompts never.
        noise: What replaces the rows' own noise settings.
        rejected_image: Whether the rejected images are needed.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        *,
        max_length: int | None = None,
        noise: NoiseOverride | None = None,
        rejected_image: bool = True,
    ) -> None:
        self.processor = processor
        self.max_length = max_length
        self.noise = noise or NoiseOverride()
        self.rejected_image = rejected_image

    @property
    def pad_token_id(self) -> int:
        """Token that fills up shorter sequences; it is masked, so any will do."""
        tokenizer = self._tokenizer
        return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    def encode(self, pair: PreferencePair) -> EncodedRow:
        """Encode a row.

        Raises:
            RowError: An image cannot be read, image parts and images differ in number (``image-count``), the
                text of a response holds the image token (``image-token-in-response``) or one that begins or
                ends a text (``special-token-in-response``), or the prompt alone fills the length
                (``prompt-too-long``).
        """
        images = [open_image(source) for source in pair.images]
        text = render_prompt(self.processor, pair.prompt)
        self._check_image_parts(pair.prompt, len(images))
        inputs = self.processor(
            images=images,
            text=[text],
            add_special_tokens=self._adds_special_tokens(text),
            return_tensors="pt",
        )
        names = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}
        prompt = {name: tensor[0] for name, tensor in inputs.items() if name in names}
        pixels = {name: tensor for name, tensor in inputs.items() if name not in names}
        room = None if self.max_length is None else self.max_length - len(prompt["input_ids"])
        if room is not None and room < 1:
            raise RowError(
                "prompt-too-long",
                f"image and prompt take {len(prompt['input_ids'])} tokens of {self.max_length}",
            )
        chosen, rejected = (
            self.response(text, pair.prompt, answer) for answer in (pair.chosen, pair.rejected)
        )
        return EncodedRow(
            id=pair.id,
            prompt=prompt,
            chosen=chosen[:room],
            rejected=rejected[:room],
            image=ImageInputs((pair.id, None), pixels, len(images)),
            rejected_image=self._rejected_image(pair, images, pixels) if self.rejected_image else None,
            cut=sum(room is not None and len(answer) > room for answer in (chosen, rejected)),
        )

    def response(self, prompt_text: str, prompt: Messages, answer: Messages) -> Tensor:
        """Tokens of a response as they continue the prompt, up to its first EOS.

        Tokenised together with the prompt where that leaves the prompt's own tokens as they are: alone, some
        tokenizers put a space token before the first word that no generated answer has.
        """
        self._refuse_special_tokens(text_of(answer))
        text = render_response(self.processor, prompt, answer)
        head, whole = self.tokens(prompt_text), self.tokens(prompt_text + text)
        if whole[: len(head)] == head:
            ids = whole[len(head) :]
        else:
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if self.image_token_id in ids:
            raise RowError("image-token-in-response", f"the answer contains {self._image_token!r}")
        eos = self._tokenizer.eos_token_id
        return torch.tensor(ids[: ids.index(eos) + 1] if eos in ids else ids)

    def _refuse_special_tokens(self, text: str) -> None:
        """To a tokenizer ``<s>`` and ``</s>`` begin and end a text; to HTML they strike it out."""
        eos = self._tokenizer.eos_token or ""
        inside = text.rstrip().removesuffix(eos)
        for token in (eos, self._tokenizer.bos_token):
            if token and token in inside:
                raise RowError("special-token-in-response", f"the answer contains {token!r}")

    def tokens(self, text: str) -> list[int]:
        """Tokens of a text that begins with a rendered prompt; each image is one placeholder."""
        special = self._adds_special_tokens(text)
        ids: list[int] = self._tokenizer(text, add_special_tokens=special)["input_ids"]
        return ids

    def _rejected_image(
        self, pair: PreferencePair, images: Sequence[Image.Image], pixels: dict[str, Tensor]
    ) -> ImageInputs:
        """The rejected image; of several pictures the one that was searched for the keywords is corrupted."""
        noise = self.noise.apply(pair.noise)
        if noise.image >= len(images):
            raise RowError("image-count", f"image {noise.image} is to be perturbed, of {len(images)}")
        swapped = noise.scope == "swap"
        if swapped and not pair.rejected_images:
            raise RowError("missing-rejected-image", "scope swap needs a column rejected_images")
        stored = open_image(stored_rejected(pair)) if swapped else None
        image_processor: Any = self.processor.image_processor
        clean = pixels if len(images) == 1 else None
        try:
            made = rejected_inputs(
                image_processor, images[noise.image], pair.regions, noise, stored, clean=clean
            )
        except ValueError as error:
            raise RowError("bad-region", str(error)) from None
        parts = [
            made.inputs if index == noise.image else image_processor(images=[image], return_tensors="pt")
            for index, image in enumerate(images)
        ]
        corrupted = dict(parts[0]) if len(parts) == 1 else batch_images(parts)
        tensors = {name: torch.as_tensor(corrupted[name]) for name in pixels}
        if any(tensors[name].shape != pixels[name].shape for name in pixels):
            raise RowError(
                "rejected-image-size", "the rejected image takes other image tokens than the image"
            )
        return ImageInputs((pair.id, noise), tensors, len(images))

    def _check_image_parts(self, prompt: Messages, num_images: int) -> None:
        parts = [
            part
            for message in prompt
            if not isinstance(message["content"], str)
            for part in message["content"]
        ]
        num_parts = sum(part.get("type") == "image" for part in parts)
        if num_parts != num_images or num_images == 0:
            raise RowError(
                "image-count", f"the prompt has {num_parts} image parts, the row has {num_images} images"
            )

    def _adds_special_tokens(self, text: str) -> bool:
        """Whether the tokenizer is to add its BOS: not when the chat template already wrote it."""
        bos = self._tokenizer.bos_token
        return not (bos and text.startswith(bos))

    @property
    def _tokenizer(self) -> Any:
        return self.processor.tokenizer

    @cached_property
    def _image_token(self) -> str:
        return getattr(self.processor, "image_token", "<image>")

    @cached_property
    def image_token_id(self) -> int:
        """The token that stands for a piece of an image, and in text for the whole."""
        return self._tokenizer.convert_tokens_to_ids(self._image_token)


class EncodedRows(Dataset[EncodedRow]):
    """Rows encoded when asked for, and kept up to a budget so that later passes read no image again.

    What is in stays in, so that a data set larger than the budget still finds a fixed share of its rows.

    Args:
        rows: The rows.
        encoder: How they are encoded.
        cache_bytes: Memory for encoded rows.
    """

    def __init__(self, rows: Rows, encoder: RowEncoder, *, cache_bytes: int = 1 << 30) -> None:
        self.rows = rows
        self.encoder = encoder
        self._budget = cache_bytes
        self._kept: dict[int, EncodedRow] = {}

    @cached_property
    def ids(self) -> list[str]:
        """Ids of the rows in their order."""
        return row_ids(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> EncodedRow:
        """The encoded row.

        Raises:
            RowError: See [`RowEncoder.encode`].
        """
        if index in self._kept:
            return self._kept[index]
        row = self.encoder.encode(self.rows[index])
        if row.nbytes <= self._budget:
            self._kept[index] = row
            self._budget -= row.nbytes
        return row
