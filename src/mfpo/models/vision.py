"""The parts of a vision-language model, and image features computed once for all their uses."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Features: TypeAlias = tuple[Tensor, ...]
"""Of the pictures of one sequence ``[image tokens, hidden]``: what the language model reads in their place,
then what is added in its deeper layers, if the model does that."""
Part: TypeAlias = Literal["language", "projector", "vision"]

# Names that `transformers` gives the modules, the tower's as in `PreTrainedModel.get_encoder`.
TOWER_NAMES = ("vision_tower", "visual", "vision_model", "vision_encoder", "image_tower")
PROJECTOR_NAMES = (
    "multi_modal_projector",
    "projector",
    "connector",
    "merger",
    "aligner",
    "deepstack_merger_list",
)


@dataclass(frozen=True, slots=True)
class ImageInputs:
    """What the image processor makes of the pictures of one sequence.

    Attributes:
        key: Names the pixels: equal keys mean equal pixels.
        tensors: Its output by name (``pixel_values``, ``image_sizes``, ``image_grid_thw``, ...).
        count: Number of pictures.
    """

    key: Hashable
    tensors: dict[str, Tensor]
    count: int = 1

    @property
    def nbytes(self) -> int:
        """Memory that the tensors take."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def pin_memory(self) -> ImageInputs:
        """The same in memory that is copied to a GPU while other work goes on."""
        return replace(self, tensors={name: tensor.pin_memory() for name, tensor in self.tensors.items()})


def unwrap(model: nn.Module) -> PreTrainedModel:
    """The ``transformers`` model inside PEFT and distributed wrappers; adapters stay in its layers."""
    inner: Any = model
    while isinstance(getattr(inner, "module", None), nn.Module):
        inner = inner.module
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def parameter_parts(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, Part]]:
    """Every parameter with its name and the part of the model it belongs to.

    The language model is the decoder with its input and output embeddings; the vision tower is found by its
    module's name. What is neither joins the two and counts as ``projector``.
    """
    base = unwrap(model)
    heads = [
        module for module in (base.get_output_embeddings(), base.get_input_embeddings()) if module is not None
    ]
    language = {id(parameter) for module in (base.get_decoder(), *heads) for parameter in module.parameters()}
    for name, parameter in model.named_parameters():
        segments = name.split(".")
        if id(parameter) in language:
            yield name, parameter, "language"
        elif any(s in PROJECTOR_NAMES for s in segments) or not any(s in TOWER_NAMES for s in segments):
            yield name, parameter, "projector"
        else:
            yield name, parameter, "vision"


def batch_images(images: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Outputs of the image processor for several rows as one batch.

    The first dimension of every key is joined, which is how processors batch images (``[N, 3, H, W]``), tiles
    and patches (``[sum of patches, D]``) alike. Other dimensions that differ, such as the number of tiles an
    image is cut into, are padded with zeros as the processors do; the model finds the real ones by
    ``image_sizes``.

    Args:
        images: Outputs of the image processor, all with the same keys.
    """
    batched = {}
    for key in images[0]:
        tensors = [image[key] for image in images]
        shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
        batched[key] = torch.cat([_pad_to(tensor, shape) for tensor in tensors])
    return batched


def _pad_to(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    if list(tensor.shape[1:]) == list(shape):
        return tensor
    padded = tensor.new_zeros((tensor.shape[0], *shape))
    padded[tuple(slice(size) for size in tensor.shape)] = tensor
    return padded


CACHE_BYTES = 1 << 30
"""Memory for image features that are kept between forward passes."""


class ImageEncoder:
    """Turns image inputs into keyword arguments of the model's forward pass, each picture encoded once.

    Where the model takes ready features (``mm_encoder_outputs`` of its forward pass), the vision tower runs
    once per distinct picture of a batch, and the features serve every sequence that shows it. While nothing
    before the language model is trained, features are also kept between calls, up to a budget; each entry is
    then encoded by itself, which costs more than it saves where most of a data set finds no room (see
    [`fits`]). Any other model gets the pixel values repeated for each sequence.

    Args:
        model: The model, wrapped or not, with ``requires_grad`` already set as it will be trained.
        cache_bytes: Memory for features kept between calls; 0 keeps none, and encodes the pictures of a batch
            together. What is in stays in.
        share: False repeats the pixel values in any case, for a model whose parts cannot be called on their
            own because its parameters are sharded.
    """

    def __init__(self, model: nn.Module, *, cache_bytes: int = CACHE_BYTES, share: bool = True) -> None:
        self.model = unwrap(model)
        parts = parameter_parts(self.model)
        self._frozen = not any(p.requires_grad for _, p, part in parts if part != "language")
        self.shares = share and "mm_encoder_outputs" in inspect.signature(self.model.forward).parameters
        self.cache_bytes = cache_bytes
        self._budget = cache_bytes if self._frozen else 0
        self._keeps = self._budget > 0
        self._kept: dict[Hashable, Features] = {}
        self._joined = False

    def __call__(self, images: Sequence[ImageInputs], image_of: Sequence[int]) -> dict[str, Any]:
        """Keyword arguments that carry the pictures into the forward pass of ``len(image_of)`` sequences.

        Args:
            images: The distinct image inputs of the batch.
            image_of: For every sequence, the index of its image inputs.
        """
        sequences = [images[index].tensors for index in image_of]
        if not self.shares:
            return self._to_device(batch_images(sequences))
        features = self._features(images)
        # The sizes and grids of the pictures still tell the model where each one stands in its sequence.
        layout = [{key: v for key, v in image.items() if not key.startswith("pixel_")} for image in sequences]
        pooled, *deeper = zip(*(features[index] for index in image_of), strict=True)
        output: Any = BaseModelOutputWithPooling(
            pooler_output=torch.cat(pooled)[None] if self._joined else pooled
        )
        if deeper:
            output = SimpleNamespace(pooler_output=pooled, deepstack_features=deeper)
        return {**self._to_device(batch_images(layout)), "mm_encoder_outputs": {"image": output}}

    @property
    def kept_bytes(self) -> int:
        """Memory of the features that are kept between calls."""
        return sum(map(_nbytes, self._kept.values()))

    @torch.no_grad()
    def fits(self, image: ImageInputs, count: int) -> bool:
        """Whether the features of ``count`` entries like this one, which is encoded, fit into the budget."""
        (features,) = self._encode([image])
        return _nbytes(features) * count <= self.cache_bytes

    def _features(self, images: Sequence[ImageInputs]) -> list[Features]:
        """Features of every entry; only unknown ones are computed."""
        found = {image.key: self._kept[image.key] for image in images if image.key in self._kept}
        new = {image.key: image for image in images if image.key not in found}
        if new:
            with torch.no_grad() if self._frozen else nullcontext():
                # What is kept must not depend, in its last bits, on the batch it was computed in: a training
                # that is resumed meets its pictures in other company.
                alone = [[image] for image in new.values()]
                together = [list(new.values())]
                encoded = [f for part in (alone if self._keeps else together) for f in self._encode(part)]
            for key, features in zip(new, encoded, strict=True):
                found[key] = features
                self._keep(key, features)
        return [found[image.key] for image in images]

    def _encode(self, images: Sequence[ImageInputs]) -> list[Features]:
        """Run the tower once over pictures of several entries, and give each entry its own part."""
        inputs = self._to_device(batch_images([image.tensors for image in images]))
        output = self.model.get_image_features(**inputs, return_dict=True)
        pooled = output.pooler_output
        self._joined = isinstance(pooled, Tensor)
        # One picture or, where pictures are cut into tiles, one tile or one entry is one part of the output.
        counts = [image.count for image in images]
        if len(pooled) != sum(counts):
            tiles = [len(image.tensors["pixel_values"]) for image in images]
            counts = tiles if len(pooled) == sum(tiles) else [1] * len(images)
        levels = [pooled, *(getattr(output, "deepstack_features", None) or ())]
        columns = []
        for level in levels:
            parts = iter(level)
            columns.append([torch.cat([next(parts) for _ in range(count)]) for count in counts])
        return list(zip(*columns, strict=True))

    def _keep(self, key: Hashable, features: Features) -> None:
        nbytes = _nbytes(features)
        if nbytes <= self._budget:
            self._kept[key] = tuple(tensor.detach() for tensor in features)
            self._budget -= nbytes

    def _to_device(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        device = next(self.model.parameters()).device
        return {key: tensor.to(device, non_blocking=True) for key, tensor in inputs.items()}


def _nbytes(features: Features) -> int:
    return sum(tensor.nbytes for tensor in features)
