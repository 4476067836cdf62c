"""Encoded rows to batches: every sequence by itself, or the answers about a picture behind one prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mfpo.models.logprobs import IGNORE, PLAIN, Layout, ResponseBatch
from mfpo.models.packing import Forest, Tree
from mfpo.models.vision import ImageInputs
from mfpo.preferences.encoding import EncodedRow, SequenceKind


def collate(
    rows: Sequence[EncodedRow],
    sequences: Sequence[SequenceKind],
    pad_token_id: int,
    layout: Layout = PLAIN,
) -> ResponseBatch:
    """Batch the wanted sequences of B rows.

    Args:
        rows: The encoded rows.
        sequences: Which of a row's sequences are wanted; all of one kind come first, then all of the next.
        pad_token_id: Token that fills up shorter sequences.
        layout: How the sequences are laid out.

    Returns:
        A batch of ``len(sequences) * B`` responses, in which a picture that serves two of them is held once.
    """
    batch = (_shared if layout.shared else _plain)(rows, sequences, pad_token_id)
    batch.chunked = layout.chunked
    return batch


def row_tokens(row: EncodedRow, sequences: Sequence[SequenceKind], layout: Layout) -> int:
    """Tokens that the wanted sequences of a row take in a layout, without what pads them to their batch."""
    prompts = len({kind == "image_rejected" for kind in sequences}) if layout.shared else len(sequences)
    answers = sum(len(_response(row, kind)) for kind in sequences)
    return prompts * len(row.prompt["input_ids"]) + answers


def _response(row: EncodedRow, kind: SequenceKind) -> Tensor:
    return row.rejected if kind == "rejected" else row.chosen


def _plain(rows: Sequence[EncodedRow], sequences: Sequence[SequenceKind], pad_token_id: int) -> ResponseBatch:
    images = [row.image for row in rows] if {"chosen", "rejected"} & set(sequences) else []
    image_of: list[int] = []
    prompts: list[dict[str, Tensor]] = []
    responses: list[Tensor] = []
    for kind in sequences:
        first = 0 if kind != "image_rejected" else len(images)
        if kind == "image_rejected":
            images += [_require(row.rejected_image) for row in rows]
        image_of += range(first, first + len(rows))
        prompts += [row.prompt for row in rows]
        responses += [_response(row, kind) for row in rows]
    labels = _pad_right(responses, IGNORE)
    inputs = {}
    for name in prompts[0]:
        fill = pad_token_id if name == "input_ids" else 0
        if name == "input_ids":
            tail = labels.masked_fill(labels == IGNORE, fill)
        elif name == "attention_mask":
            tail = (labels != IGNORE).long()
        else:
            tail = torch.full_like(labels, _response_type(name, prompts))
        inputs[name] = torch.cat([_pad_left([prompt[name] for prompt in prompts], fill), tail], dim=1)
    # Models that place image tokens in two dimensions derive the positions from the token types themselves.
    if "mm_token_type_ids" not in inputs and "image_grid_thw" not in images[0].tensors:
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    slots = (labels != IGNORE).flatten().nonzero()[:, 0]
    mask = inputs.get("attention_mask")
    # Told here and not of the batch on its device, which would wait for a GPU.
    padding = 0.0 if mask is None else 1 - mask.float().mean().item()
    return ResponseBatch(inputs, labels, slots, images, image_of, padding)


def _shared(
    rows: Sequence[EncodedRow], sequences: Sequence[SequenceKind], _pad_token_id: int
) -> ResponseBatch:
    """A tree for each picture of each row; the trees of a row are neighbours."""
    labels = _pad_right([_response(row, kind) for kind in sequences for row in rows], IGNORE)
    trees: list[Tree] = []
    images: list[ImageInputs] = []
    slots: list[Tensor] = []
    columns: dict[str, list[Tensor]] = {}
    for number, row in enumerate(rows):
        for rejected in (False, True):
            kinds = [kind for kind in sequences if (kind == "image_rejected") == rejected]
            if not kinds:
                continue
            answers = [_response(row, kind) for kind in kinds]
            trees.append(Tree(len(row.prompt["input_ids"]), tuple(len(answer) for answer in answers)))
            images.append(_require(row.rejected_image) if rejected else row.image)
            for kind, answer in zip(kinds, answers, strict=True):
                first = (sequences.index(kind) * len(rows) + number) * labels.shape[1]
                slots.append(torch.arange(first, first + len(answer)))
            for name, prompt in row.prompt.items():
                kind_of_token = _response_type(name, [row.prompt for row in rows])
                tail = [torch.full_like(answer, kind_of_token) for answer in answers]
                tail = answers if name == "input_ids" else tail
                columns.setdefault(name, []).extend([prompt, *tail])
    forest = Forest(tuple(trees))
    inputs = {name: torch.cat(parts)[None] for name, parts in columns.items() if name != "attention_mask"}
    inputs["position_ids"] = forest.depths()[None]
    return ResponseBatch(
        inputs,
        labels,
        torch.cat(slots),
        images,
        list(range(len(trees))),
        forest=forest,
        predictors=forest.predictors(),
    )


def _response_type(name: str, prompts: Sequence[dict[str, Tensor]]) -> int:
    """Value of a text input at response tokens: that of text.

    Where ``token_type_ids`` are 0 even at image tokens, 0 means a prompt that sees all of itself (PaliGemma)
    and a response must be 1, or it would be seen by itself before it is said.
    """
    return int(name == "token_type_ids" and not any(bool(prompt[name].any()) for prompt in prompts))


def _pad_left(tensors: Sequence[Tensor], fill: int) -> Tensor:
    padded = torch.full((len(tensors), max(map(len, tensors))), fill)
    for row, tensor in zip(padded, tensors, strict=True):
        row[len(row) - len(tensor) :] = tensor
    return padded


def _pad_right(tensors: Sequence[Tensor], fill: int) -> Tensor:
    padded = torch.full((len(tensors), max(map(len, tensors))), fill)
    for row, tensor in zip(padded, tensors, strict=True):
        row[: len(tensor)] = tensor
    return padded


def _require(image: ImageInputs | None) -> ImageInputs:
    assert image is not None, "the rows were encoded without rejected images"
    return image
