"""Train the vision tower on what each patch shows.

The tower sees the product's own diffusion noise as augmentation. A real encoder tolerates moderate noise; a
tower that has never seen any takes a noised object for an alien pattern, which the image loss could detect
without looking.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from mfpo.models.load import VLM
from mfpo.preferences.noise import alpha_bars
from mfpo.scenes.examples import Examples
from mfpo.scenes.optimizer import Optimizer
from mfpo.scenes.world import COLOURS, KINDS

TowerPart: TypeAlias = tuple[Tensor, ...]


class PatchHeads(nn.Module):
    """What the tower must say of each patch: the kinds on it, their colour, and where the object's centre is.

    The centre gives the tower a reason to keep positions, which captions and questions ask for.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.kind = nn.Linear(width, 1 + len(KINDS))
        self.colour = nn.Linear(width, len(COLOURS))
        self.centre = nn.Linear(width, 2)

    def loss(self, features: Tensor, covers: Tensor, colours: Tensor, centres: Tensor) -> Tensor:
        """Weighted sum of the three losses.

        Args:
            features: [B, P, D] of the tower.
            covers: [B, P, K] share of the patch that each kind covers.
            colours: [B, K] colour index of each kind.
            centres: [B, K, 2] centre of each kind.
        """
        hidden = self.norm(features)
        largest, dominant = covers.max(dim=-1)
        on_object = largest > 0.15
        target_kind = torch.where(on_object, dominant + 1, 0)
        kind_loss = F.cross_entropy(self.kind(hidden).flatten(0, 1), target_kind.flatten())
        if not on_object.any():
            return 2.0 * kind_loss
        target_colour = torch.gather(colours, 1, dominant)[on_object]
        target_centre = torch.gather(centres, 1, dominant[..., None].expand(-1, -1, 2))[on_object]
        colour_loss = F.cross_entropy(self.colour(hidden[on_object]), target_colour)
        centre_loss = F.l1_loss(self.centre(hidden[on_object]), target_centre)
        return 2.0 * kind_loss + 0.3 * colour_loss + centre_loss


def train_tower(
    vlm: VLM,
    examples: Examples,
    generator: torch.Generator,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    noise_rate: float,
    max_noise_step: int,
) -> None:
    """Train the vision tower on patch labels, then freeze it.

    Args:
        vlm: The model whose tower is trained.
        examples: Drawn scenes.
        generator: Source of order and noise.
        steps: Optimiser steps.
        batch_size: Scenes a step.
        learning_rate: Peak learning rate.
        noise_rate: Share of pictures with noise.
        max_noise_step: Noise steps are drawn uniformly from 0 to this one.
    """
    tower = vlm.model.model.vision_tower
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        heads = PatchHeads(tower.config.hidden_size)
    labels = patch_labels(examples)
    tower.train()

    def loss(part: TowerPart) -> Tensor:
        pixels, *targets = part
        return heads.loss(patch_features(tower, pixels), *targets) * (len(pixels) / batch_size)

    with Optimizer([tower, heads], learning_rate, steps) as optimizer:
        batches = index_batches(len(examples.pixels), batch_size, steps, generator)
        for index in tqdm(batches, total=steps, desc="training the vision tower"):
            pixels = noised_pixels(vlm, examples, index, noise_rate, max_noise_step, generator)
            rows = (pixels, *(column[index] for column in labels))
            optimizer.step(loss, list(zip(*(column.chunk(2) for column in rows), strict=True)))
    tower.eval().requires_grad_(False)


def patch_labels(examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
    """Covers, colours and centres as tensors."""
    arrays = (examples.covers, examples.colours, examples.centres)
    covers, colours, centres = (torch.from_numpy(array) for array in arrays)
    return covers, colours, centres


def patch_features(tower: nn.Module, pixels: Tensor) -> Tensor:
    """[B, P, D]: what the LLaVA reads of the tower, the last layer's output without the class token."""
    features: Tensor = tower(pixels).last_hidden_state[:, 1:]
    return features


def noised_pixels(
    vlm: VLM, examples: Examples, index: Tensor, noise_rate: float, max_step: int, generator: torch.Generator
) -> Tensor:
    """Normalised pixels [B, 3, S, S], a share of them with noise on some objects or everywhere."""
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1)
        for v in (vlm.image_processor.image_mean, vlm.image_processor.image_std)
    )
    clean = (torch.from_numpy(examples.pixels[index]).float() / 255 - mean) / std
    labels = torch.from_numpy(examples.labels[index])
    kinds = torch.rand(len(index), len(KINDS) + 1, generator=generator) < 0.5
    kinds[:, 0] = False
    everywhere = torch.rand(len(index), generator=generator) < 0.25
    region = torch.gather(kinds, 1, labels.long().flatten(1)).view_as(labels) | everywhere[:, None, None]
    region &= (torch.rand(len(index), generator=generator) < noise_rate)[:, None, None]
    steps = torch.randint(0, max_step + 1, (len(index),), generator=generator)
    kept = torch.tensor(alpha_bars("vcd"), dtype=torch.float32)[steps].view(-1, 1, 1, 1)
    noised = kept.sqrt() * clean + (1 - kept).sqrt() * torch.randn(clean.shape, generator=generator)
    return torch.where(region[:, None], noised, clean)


def index_batches(num_rows: int, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index batches, each row once before any row twice."""
    queue = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        while len(queue) < batch_size:
            queue = torch.cat([queue, torch.randperm(num_rows, generator=generator)])
        yield queue[:batch_size]
        queue = queue[batch_size:]
