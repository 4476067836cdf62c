"""Train the small LLaVA from scratch: first the tower on patch labels, then the rest on answers.

The tower sees the product's own diffusion noise as augmentation. A real encoder tolerates moderate noise; a
tower that has never seen any takes a noised object for an alien pattern, which the image loss could detect
without looking.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mfpo.data.fingerprint import code_digest, library_versions
from mfpo.models.chat import render_prompt, render_response
from mfpo.models.load import VLM
from mfpo.preferences.noise import alpha_bars
from mfpo.records import assistant_message, user_message
from mfpo.scenes.examples import Examples, description, draw_examples, question
from mfpo.scenes.llava import LlavaSize, create_llava
from mfpo.scenes.world import BORDERS, COLOURS, KINDS, POSITIONS, Scene, World, sample_scenes

CODE = (
    "scenes/backgrounds.py",
    "scenes/captions.py",
    "scenes/examples.py",
    "scenes/llava.py",
    "scenes/render.py",
    "scenes/sprites",
    "scenes/training.py",
    "scenes/world.py",
    "preferences/noise.py",
    "models/chat.py",
)
"""Source that a trained scene model depends on."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything the trained LLaVA depends on; its hash names the cached checkpoint.

    Attributes:
        seed: Seed of scenes, weights, order and noise.
        world: The world's difficulty.
        size: Shape of the model.
        num_scenes: Scenes drawn for training.
        tower_steps: Optimiser steps of the vision tower.
        tower_batch_size: Scenes a step.
        tower_learning_rate: Peak learning rate.
        tower_noise_rate: Share of pictures noised while the tower trains.
        max_noise_step: Noise steps are drawn uniformly from 0 to this one.
        steps: Optimiser steps of projector and language model.
        batch_size: Answers a step.
        learning_rate: Peak learning rate.
        noise_rate: Share of pictures noised while the language model trains.
        alignment_steps: Optimiser steps of the projector on words for single patches.
        absent_rate: Captions mention an absent kind with this multiple of its probability in the context.
        drop_rate: Captions leave out a present object with this probability.
        question_rate: Share of steps on questions; the others are on descriptions.
    """

    seed: int = 0
    world: World = field(default_factory=World)
    size: LlavaSize = field(default_factory=LlavaSize)
    num_scenes: int = 6000
    tower_steps: int = 600
    tower_batch_size: int = 56
    tower_learning_rate: float = 2e-3
    tower_noise_rate: float = 0.4
    max_noise_step: int = 900
    steps: int = 700
    batch_size: int = 32
    learning_rate: float = 2e-3
    noise_rate: float = 0.1
    alignment_steps: int = 300
    absent_rate: float = 0.65
    drop_rate: float = 0.08
    question_rate: float = 0.5

    def fingerprint(self) -> str:
        """Hash over the recipe, the code that carries it out and the libraries that code calls."""
        depends = {"recipe": asdict(self), "code": code_digest(CODE), "libraries": library_versions()}
        return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:12]


def train_llava(recipe: Recipe | None = None, *, num_workers: int = 2) -> VLM:
    """Train a small LLaVA from nothing.

    Args:
        recipe: What to train; the default world's model when None.
        num_workers: Processes that draw scenes.

    Returns:
        The trained model with its processor, in evaluation mode.
    """
    recipe = recipe or Recipe()
    scenes = sample_scenes("sft", recipe.num_scenes, recipe.seed, recipe.world)
    size = recipe.size
    examples = draw_examples(scenes, recipe.world.image_size, size.image_size, size.patch_size, num_workers)
    rng = np.random.default_rng([recipe.seed, 1])
    talks = [_describe(scene, recipe, rng) for scene in scenes[:2000]]
    talks += [question(scene, recipe.world, rng) for scene in scenes[:2000]]
    texts = [f"USER: {asked} ASSISTANT: {answer}" for asked, answer in talks]
    vlm = create_llava(texts, size, seed=recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    train_tower(vlm, examples, recipe, generator)
    align(vlm, examples, recipe, generator)
    train_language(vlm, scenes, examples, recipe, generator)
    return vlm


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
        """Sum of the three losses.

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
            return kind_loss
        target_colour = torch.gather(colours, 1, dominant)[on_object]
        target_centre = torch.gather(centres, 1, dominant[..., None].expand(-1, -1, 2))[on_object]
        colour_loss = F.cross_entropy(self.colour(hidden[on_object]), target_colour)
        centre_loss = F.l1_loss(self.centre(hidden[on_object]), target_centre)
        return 2.0 * kind_loss + 0.3 * colour_loss + centre_loss


def train_tower(vlm: VLM, examples: Examples, recipe: Recipe, generator: torch.Generator) -> None:
    """Train the vision tower on patch labels, then freeze it."""
    tower = vlm.model.model.vision_tower
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        heads = PatchHeads(recipe.size.vision_width)
    optimizer = Optimizer([tower, heads], recipe.tower_learning_rate, recipe.tower_steps)
    covers, colours, centres = _labels(examples)
    tower.train()
    batches = _batches(len(covers), recipe.tower_batch_size, recipe.tower_steps, generator)
    for index in tqdm(batches, total=recipe.tower_steps, desc="training the vision tower"):
        pixels = _pixels(vlm, examples, index, recipe.tower_noise_rate, recipe.max_noise_step, generator)
        loss = heads.loss(_features(tower, pixels), covers[index], colours[index], centres[index])
        optimizer.step(loss)
    tower.eval().requires_grad_(False)


def train_language(
    vlm: VLM, scenes: list[Scene], examples: Examples, recipe: Recipe, generator: torch.Generator
) -> None:
    """Train projector and language model on conversations about the scenes; the tower is frozen."""
    model = vlm.model
    trained = [model.model.multi_modal_projector, model.model.language_model, model.lm_head]
    optimizer = Optimizer(trained, recipe.learning_rate, recipe.steps)
    rng = np.random.default_rng([recipe.seed, 2])
    order = list(_batches(len(scenes), recipe.batch_size, recipe.steps, generator))
    model.train()
    for index in tqdm(order, desc="training the language model"):
        # A batch is all descriptions or all questions, which are shorter.
        if rng.random() < recipe.question_rate:
            talks = [question(scenes[i], recipe.world, rng) for i in index.tolist()]
        else:
            talks = [_describe(scenes[i], recipe, rng) for i in index.tolist()]
        with torch.no_grad():
            pixels = _pixels(vlm, examples, index, recipe.noise_rate, recipe.max_noise_step, generator)
            features = _features(model.model.vision_tower, pixels)
        ids, mask, labels = tokenise(vlm, talks)
        images = BaseModelOutputWithPooling(pooler_output=list(model.model.multi_modal_projector(features)))
        logits = model(input_ids=ids, attention_mask=mask, mm_encoder_outputs={"image": images}).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        optimizer.step(loss)
    model.eval()


def align(vlm: VLM, examples: Examples, recipe: Recipe, generator: torch.Generator) -> None:
    """Draw what the projector says of a patch towards the words for its kind, colour and position.

    It is what LLaVA's first stage is for, feature alignment, and costs seconds: no language model is run.
    """
    projector, embedding = vlm.model.model.multi_modal_projector, vlm.model.get_input_embeddings()
    optimizer = torch.optim.AdamW([*projector.parameters(), embedding.weight], lr=3e-3)
    groups = (list(KINDS), list(COLOURS), list(POSITIONS))
    words = [torch.tensor([vlm.tokenizer(f" {word}")["input_ids"][-1] for word in group]) for group in groups]
    covers, colours, centres = _labels(examples)
    for index in _batches(len(covers), 64, recipe.alignment_steps, generator):
        with torch.no_grad():
            pixels = _pixels(vlm, examples, index, 0.0, 0, generator)
            features = _features(vlm.model.model.vision_tower, pixels)
        largest, kind = covers[index].max(dim=-1)
        shown = largest > 0.25
        scene, kind = index[torch.nonzero(shown)[:, 0]], kind[shown]
        x = centres[scene, kind, 0]
        targets = (kind, colours[scene, kind], torch.bucketize(x, torch.tensor(BORDERS)))
        hidden = projector(features[shown])
        loss = torch.zeros(())
        for tokens, target in zip(words, targets, strict=True):
            loss = loss + F.cross_entropy(hidden @ embedding(tokens).T / hidden.shape[-1] ** 0.5, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def tokenise(vlm: VLM, talks: list[tuple[str, str]]) -> tuple[Tensor, Tensor, Tensor]:
    """Right-padded ids, attention mask and labels, each [B, L]; labels are -100 outside the answers."""
    image = "<image>" * vlm.model.config.image_seq_length
    rows = []
    for asked, answer in talks:
        prompt = user_message(asked)
        head = vlm.tokenizer(render_prompt(vlm.processor, prompt).replace("<image>", image))["input_ids"]
        response = render_response(vlm.processor, prompt, assistant_message(answer))
        rows.append((head, vlm.tokenizer(response, add_special_tokens=False)["input_ids"]))
    width = max(len(head) + len(tail) for head, tail in rows)
    ids = torch.full((len(rows), width), vlm.tokenizer.pad_token_id)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, (head, tail) in enumerate(rows):
        end = len(head) + len(tail)
        ids[i, :end] = torch.tensor(head + tail)
        mask[i, :end] = 1
        labels[i, len(head) : end] = ids[i, len(head) : end]
    return ids, mask, labels


def _describe(scene: Scene, recipe: Recipe, rng: np.random.Generator) -> tuple[str, str]:
    return description(scene, recipe.world, rng, absent_rate=recipe.absent_rate, drop_rate=recipe.drop_rate)


def _labels(examples: Examples) -> tuple[Tensor, Tensor, Tensor]:
    """Covers, colours and centres as tensors."""
    arrays = (examples.covers, examples.colours, examples.centres)
    covers, colours, centres = (torch.from_numpy(array) for array in arrays)
    return covers, colours, centres


def _features(tower: nn.Module, pixels: Tensor) -> Tensor:
    """[B, P, D]: what the LLaVA reads of the tower, the last hidden state without the class token."""
    return tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]


def _pixels(
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


def _batches(num_rows: int, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index batches, each row once before any row twice."""
    queue = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        while len(queue) < batch_size:
            queue = torch.cat([queue, torch.randperm(num_rows, generator=generator)])
        yield queue[:batch_size]
        queue = queue[batch_size:]


class Optimizer:
    """Muon on the matrices of the layers, AdamW on everything else, one learning-rate schedule for both.

    Muon needs about half of AdamW's steps here, which is what keeps the training within minutes.

    Args:
        modules: What is trained.
        learning_rate: Peak learning rate of AdamW; Muon's is twice that.
        steps: Length of the schedule: 5% linear warm-up, then cosine decay to zero.
    """

    def __init__(self, modules: Sequence[nn.Module], learning_rate: float, steps: int) -> None:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for module in modules:
            for name, parameter in module.named_parameters():
                hidden = parameter.ndim == 2 and ".layers." in f".{name}"
                (matrices if hidden else others).append(parameter)
        self.parameters = [*matrices, *others]
        adamw = torch.optim.AdamW(others, lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
        muon = torch.optim.Muon(
            matrices, lr=2 * learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        )
        warmup = max(1, steps // 20)

        def factor(step: int) -> float:
            return min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0))))

        self._optimizers = (adamw, muon)
        self._schedules = [torch.optim.lr_scheduler.LambdaLR(one, factor) for one in self._optimizers]

    def step(self, loss: Tensor) -> None:
        """One update, gradients clipped to norm 1."""
        for one in self._optimizers:
            one.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for one in self._optimizers:
            one.step()
        for schedule in self._schedules:
            schedule.step()
