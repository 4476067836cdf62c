"""The attention probe (figure 1c of the paper): where a model looks while it names an object.

For every keyword of the chosen answer that has a region, the attention of the positions that predict the
keyword's tokens is split between the object's image tokens, the other image tokens and the text, for each
layer and head. Attention is no proof of use; read it beside the grounding probe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from mfpo.data.images import open_image
from mfpo.errors import RowError, Skip, UserError
from mfpo.evaluation.results import ScoreResult, score_result
from mfpo.evaluation.statistics import Metric
from mfpo.models.image_tokens import image_token_id, overview_tokens, token_coverage
from mfpo.models.load import VLM
from mfpo.models.mode import evaluating
from mfpo.models.vision import ImageEncoder, unwrap
from mfpo.preferences.collate import collate
from mfpo.preferences.encoding import EncodedRow, RowEncoder
from mfpo.preferences.rejected import picture_of, rejected_inputs
from mfpo.records import Noise, PreferencePair, text_of

if TYPE_CHECKING:
    from mfpo.data.folder import PreferenceDataset

FULL_COLOUR = 4.0
"""Times what evenly spread attention would give, from where on the colour of an overlay is full."""
# Vermilion, of the colours that the colour-blind can tell from grey.
_COLOUR = (255, 90, 0)

METRICS = {
    "object": Metric("object", "mentions", better="higher", text="attention on the named object's tokens"),
    "other_image": Metric("other_image", "mentions", text="attention on the other image tokens"),
    "text": Metric("text", "mentions", text="attention on text, template and earlier answer"),
    "focus": Metric(
        "object",
        "expected",
        scale=1.0,
        better="higher",
        text="attention on the object over what evenly spread attention on the image would give it",
    ),
}


@dataclass(frozen=True, slots=True)
class Mention:
    """A keyword in an answer, with its place in the picture.

    Attributes:
        keyword: Its text.
        tokens: Positions of its tokens in the answer.
        coverage: Share of each image token that its regions cover, float32 ``[image tokens]``.
    """

    keyword: str
    tokens: list[int]
    coverage: Tensor


def attention(
    vlm: VLM,
    pairs: PreferenceDataset | Sequence[PreferencePair],
    *,
    pictures: Path | None = None,
    num_pictures: int = 0,
    progress: bool = True,
) -> ScoreResult:
    """Split the attention of keyword tokens between object, rest of the picture and text.

    The query is the position whose output predicts the token. Means over layers and heads are the metrics;
    ``settings["layers"]`` has, for every layer and head, the mean attention on the object (``object``) and on
    the whole image (``image``), in percent.

    Args:
        vlm: The model, loaded with eager attention, which alone gives attention weights.
        pairs: Preference rows with one image each; rows without a region are left out and counted.
        pictures: Folder for overlays of the attention on the picture.
        num_pictures: Rows that get one.
        progress: Whether to show a bar.

    Raises:
        UserError: No row can be used, or the model gives no attention weights.
    """
    encoder = RowEncoder(vlm.processor, rejected_image=False)
    images = ImageEncoder(vlm.model, cache_bytes=0)
    records: list[dict[str, Any]] = []
    skips: list[Skip] = []
    object_LH, image_LH = torch.zeros(()), torch.zeros(())
    for pair in tqdm(pairs, desc="attention probe", unit="row", disable=not progress):
        try:
            row = encoder.encode(pair)
            mentions = find_mentions(vlm, pair, row)
        except RowError as error:
            skips.append(Skip(f"row {pair.id}", error.reason, error.detail))
            continue
        weights_LHRK, is_image = answer_attention(vlm, row, images)
        shares: Counter[str] = Counter()
        for mention in mentions:
            on_image_LHI = weights_LHRK[:, :, mention.tokens].mean(2)[..., is_image]
            object_LH = object_LH + on_image_LHI @ mention.coverage
            image_LH = image_LH + on_image_LHI.sum(-1)
            shares.update(_shares(on_image_LHI, mention.coverage))
            if pictures is not None and len(records) < num_pictures:
                path = pictures / f"{pair.id}-{_file_name(mention.keyword)}.png"
                _save_overlay(path, vlm, row, on_image_LHI.mean((0, 1)))
        records.append({"id": pair.id, "mentions": len(mentions), **shares})
    if not records:
        detail = f", the first because of {skips[0].reason} {skips[0].detail}".rstrip() if skips else ""
        raise UserError(f"no row has a keyword with a region{detail}", where="--dataset")
    count = sum(record["mentions"] for record in records)
    settings = {
        "skipped": [skip.to_dict() for skip in skips],
        "layers": {"object": _percent(object_LH, count), "image": _percent(image_LH, count)},
        "overlay_full_at": FULL_COLOUR,
    }
    return score_result("attention", records, METRICS, settings)


def _shares(on_image_LHI: Tensor, coverage: Tensor) -> dict[str, float]:
    """Where the attention of one mention goes, over all layers and heads.

    Args:
        on_image_LHI: Attention on each image token, ``[layers, heads, image tokens]``.
        coverage: Share of each image token that the object covers.
    """
    target = (on_image_LHI @ coverage).mean().item()
    whole = on_image_LHI.sum(-1).mean().item()
    return {
        "object": target,
        "other_image": whole - target,
        "text": 1 - whole,
        "expected": whole * coverage.mean().item(),
    }


def find_mentions(vlm: VLM, pair: PreferencePair, row: EncodedRow) -> list[Mention]:
    """The keywords of a row whose regions the model sees and whose tokens the answer holds.

    Raises:
        RowError: The row has several images (``image-count``), or no such keyword (``no-region``).
    """
    if len(pair.images) != 1:
        raise RowError("image-count", f"the attention probe needs one image, the row has {len(pair.images)}")
    picture = open_image(pair.images[0])
    clean = row.image.tensors
    count = int((row.prompt["input_ids"] == image_token_id(vlm.model)).sum())
    places = _token_spans(vlm, row, text_of(pair.chosen))
    mentions = []
    for keyword in pair.keywords:
        regions = [region for region in pair.regions if region.keyword == keyword.text]
        tokens = [
            index
            for index, (start, end) in enumerate(places)
            if any(start < stop and begin < end for begin, stop in keyword.spans)
        ]
        if not regions or not tokens:
            continue
        found = rejected_inputs(vlm.image_processor, picture, regions, Noise("region"), clean=clean)
        if found.scope == "region" and found.mask is not None:
            mentions.append(
                Mention(keyword.text, tokens, token_coverage(vlm.model, clean, found.mask, count))
            )
    if not mentions:
        raise RowError("no-region", "none of its keywords has a region that the model sees")
    return mentions


@torch.no_grad()
def answer_attention(vlm: VLM, row: EncodedRow, images: ImageEncoder) -> tuple[Tensor, Tensor]:
    """Attention weights of the positions that predict the tokens of the chosen answer.

    Args:
        vlm: The model with eager attention.
        row: The encoded row.
        images: Encoder of the model's pictures.

    Returns:
        Weights float32 ``[layers, heads, R, K]`` on the CPU, each line adding up to 1, and where the K tokens
        are image tokens, bool ``[K]``.

    Raises:
        UserError: The attention kernel gives no weights.
    """
    batch = collate([row], ("chosen",), 0).to(vlm.device)
    inputs = {**batch.inputs, **images(batch.images, batch.image_of), "use_cache": False}
    R = batch.labels.shape[1]
    with evaluating(vlm.model), _captured(vlm.model, slice(-(R + 1), -1)) as layers:
        vlm.model(**inputs)
    if not layers:
        raise UserError(
            "the model gives no attention weights",
            where="--attn_implementation",
            fix="the attention probe needs --attn_implementation eager",
        )
    is_image = batch.inputs["input_ids"][0].cpu() == image_token_id(vlm.model)
    return torch.stack(layers), is_image


@contextmanager
def _captured(model: nn.Module, queries: slice) -> Iterator[list[Tensor]]:
    """Collect the weights ``[heads, R, K]`` of those queries, layer by layer, and drop the rest at once."""
    layers: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if weights is not None:
            layers.append(weights[0, :, queries].float().cpu())

    decoder: Any = unwrap(model).get_decoder()
    hooks = [layer.self_attn.register_forward_hook(keep) for layer in decoder.layers]
    try:
        yield layers
    finally:
        for hook in hooks:
            hook.remove()


def _token_spans(vlm: VLM, row: EncodedRow, answer: str) -> list[tuple[int, int]]:
    """Where each token of the chosen answer stands in its text; empty spans for what is not part of it."""
    tokens = row.chosen.tolist()
    ends = [
        len(vlm.tokenizer.decode(tokens[: count + 1], clean_up_tokenization_spaces=False))
        for count in range(len(tokens))
    ]
    whole = vlm.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
    # The template may drop white space around the answer, and a long answer may be cut.
    head = answer.strip()[:20]
    if head not in whole:
        return []
    offset = whole.index(head) - answer.index(head)
    starts = [0, *ends[:-1]]
    return [(start - offset, end - offset) for start, end in zip(starts, ends, strict=True)]


def overlay(picture: Image.Image, grid: np.ndarray) -> Image.Image:
    """Attention as colour on a picture: none up to what evenly spread attention gives, full from 4 times it.

    In between, the colour is as strong as the logarithm of the multiple, half at twice. So the scale is the
    same for all pictures and models, and where the attention is even, the picture stays as it is.

    Args:
        picture: What the model sees; it becomes grey.
        grid: Attention on the picture's tokens in any unit, float ``[rows, columns]``.
    """
    multiple = (grid / max(float(grid.mean()), 1e-12)).astype(np.float32)
    large = np.asarray(Image.fromarray(multiple).resize(picture.size, Image.Resampling.BICUBIC))
    strength = np.log(large.clip(1, FULL_COLOUR)) / np.log(FULL_COLOUR)
    # What is below stays visible everywhere.
    share = 0.85 * strength[..., None]
    grey = np.asarray(picture.convert("L"), dtype=np.float32)[..., None].repeat(3, -1)
    mixed = grey * (1 - share) + np.array(_COLOUR, dtype=np.float32) * share
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))


def _save_overlay(path: Path, vlm: VLM, row: EncodedRow, weights: Tensor) -> None:
    """Attention over the image tokens of the overview, on the picture that the model sees."""
    view = overview_tokens(vlm.model, row.image.tensors, len(weights))
    grid = weights[view.start : view.start + view.rows * view.columns].view(view.rows, view.columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    overlay(picture_of(vlm.image_processor, row.image.tensors), grid.numpy()).save(path)


def _percent(total: Tensor, count: int) -> list[list[float]]:
    return [[round(100 * value / count, 4) for value in line] for line in total.tolist()]


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in text)[:40]
