"""Train the small LLaVA from scratch: the tower on patch labels, then the rest on conversations."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mfpo.data.fingerprint import code_digest, library_versions
from mfpo.models.load import VLM
from mfpo.models.threads import one_thread
from mfpo.scenes.examples import (
    Examples,
    Talk,
    checklist,
    description,
    draw_examples,
    question,
)
from mfpo.scenes.llava import LlavaSize, create_llava
from mfpo.scenes.optimizer import Optimizer
from mfpo.scenes.packing import Batch, Packer
from mfpo.scenes.tower import index_batches, noised_pixels, patch_features, patch_labels, train_tower
from mfpo.scenes.world import BORDERS, COLOURS, KINDS, POSITIONS, Scene, World, sample_scenes

CODE = (
    "models/threads.py",
    "scenes/backgrounds.py",
    "scenes/captions.py",
    "scenes/examples.py",
    "scenes/llava.py",
    "scenes/optimizer.py",
    "scenes/packing.py",
    "scenes/render.py",
    "scenes/sprites",
    "scenes/tower.py",
    "scenes/training.py",
    "scenes/world.py",
    "preferences/noise.py",
    "models/chat.py",
    "records.py",
)
"""Source that a trained scene model depends on."""

# Words that say what is in the picture weigh this many times as much as the others in the loss: most of a
# caption's words follow from its wording alone, and their losses drown out whether an object is named twice.
TELLING_WEIGHT = 10.0
TalkPart: TypeAlias = tuple[Batch, Tensor, float]


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
        alignment_steps: Optimiser steps of the projector on words for single patches.
        steps: Optimiser steps of projector and language model.
        lesson_steps: In so many of them, the first, every picture has two questions and a checklist beside
            the description.
        question_rate: Share of later steps with a question beside the description.
        batch_size: Pictures a step.
        learning_rate: Peak learning rate.
        noise_rate: Share of pictures noised while the language model trains.
        absent_rate: Captions mention an absent kind with this multiple of its probability in the context.
        drop_rate: Captions leave out a present object with this probability.
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
    alignment_steps: int = 300
    steps: int = 600
    lesson_steps: int = 300
    question_rate: float = 0.5
    batch_size: int = 32
    learning_rate: float = 2e-3
    noise_rate: float = 0.1
    absent_rate: float = 0.22
    drop_rate: float = 0.08

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
    with one_thread():
        return _trained(recipe, scenes, examples)


def _trained(recipe: Recipe, scenes: list[Scene], examples: Examples) -> VLM:
    """Tower, projector and language model, one after the other."""
    vlm = create_llava(training_texts(scenes[:2000], recipe), recipe.size, seed=recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    train_tower(
        vlm,
        examples,
        generator,
        steps=recipe.tower_steps,
        batch_size=recipe.tower_batch_size,
        learning_rate=recipe.tower_learning_rate,
        noise_rate=recipe.tower_noise_rate,
        max_noise_step=recipe.max_noise_step,
    )
    align(vlm, examples, recipe, generator)
    train_language(vlm, scenes, examples, recipe, generator)
    return vlm


def align(vlm: VLM, examples: Examples, recipe: Recipe, generator: torch.Generator) -> None:
    """Draw what the projector says of a patch towards the words for its kind, colour and position.

    It is what LLaVA's first stage is for, feature alignment, and costs seconds: no language model is run.
    """
    projector, embedding = vlm.model.model.multi_modal_projector, vlm.model.get_input_embeddings()
    optimizer = torch.optim.AdamW([*projector.parameters(), embedding.weight], lr=3e-3)
    groups = (list(KINDS), list(COLOURS), list(POSITIONS))
    words = [torch.tensor([_tokens(vlm, word)[-1] for word in group]) for group in groups]
    covers, colours, centres = patch_labels(examples)
    for index in index_batches(len(covers), 64, recipe.alignment_steps, generator):
        with torch.no_grad():
            pixels = noised_pixels(vlm, examples, index, 0.0, 0, generator)
            features = patch_features(vlm.model.model.vision_tower, pixels)
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


def train_language(
    vlm: VLM, scenes: list[Scene], examples: Examples, recipe: Recipe, generator: torch.Generator
) -> None:
    """Train projector and language model on conversations about the scenes; the tower is frozen."""
    model, packer = vlm.model, Packer(vlm)
    telling = telling_tokens(vlm)
    rng = np.random.default_rng([recipe.seed, 2])

    def loss(part: TalkPart) -> Tensor:
        batch, pixels, total = part
        with torch.no_grad():
            features = patch_features(model.model.vision_tower, pixels)
        images = BaseModelOutputWithPooling(pooler_output=list(model.model.multi_modal_projector(features)))
        hidden = model.model(
            input_ids=batch.ids,
            attention_mask=batch.visible,
            position_ids=batch.positions,
            mm_encoder_outputs={"image": images},
            use_cache=False,
        ).last_hidden_state
        learned = batch.labels[:, 1:] != -100
        labels = batch.labels[:, 1:][learned]
        losses = F.cross_entropy(model.lm_head(hidden[:, :-1][learned]), labels, reduction="none")
        return (losses * loss_weights(labels, telling)).sum() / total

    trained = [model.model.multi_modal_projector, model.model.language_model, model.lm_head]
    model.train()
    with Optimizer(trained, recipe.learning_rate, recipe.steps) as optimizer:
        order = index_batches(len(scenes), recipe.batch_size, recipe.steps, generator)
        progress = tqdm(order, total=recipe.steps, desc="training the language model")
        for step, index in enumerate(progress):
            pixels = noised_pixels(vlm, examples, index, recipe.noise_rate, recipe.max_noise_step, generator)
            lesson, asks = step < recipe.lesson_steps, rng.random() < recipe.question_rate
            talks = [
                _talks(scenes[i], recipe, rng, lesson, 2 if lesson else int(asks)) for i in index.tolist()
            ]
            batches = [packer.pack(talks[0::2]), packer.pack(talks[1::2])]
            total = sum(float(loss_weights(batch.labels, telling).sum()) for batch in batches)
            optimizer.step(loss, [(batches[0], pixels[0::2], total), (batches[1], pixels[1::2], total)])
    model.eval()


def telling_tokens(vlm: VLM) -> Tensor:
    """Ids of the words that say what is in the picture."""
    words = [name for kind in KINDS.values() for name in kind.names]
    words += [*COLOURS, *POSITIONS, "no", "No", "Yes"]
    words += [word.capitalize() for word in COLOURS]
    tokens = [_tokens(vlm, word) for word in words]
    # A name in several tokens would give its weight to fragments that other words share.
    return torch.tensor(sorted({one[0] for one in tokens if len(one) == 1}))


def loss_weights(labels: Tensor, telling: Tensor) -> Tensor:
    """Weight of each label in the loss, 0 where nothing is learned."""
    weights = torch.where(torch.isin(labels, telling), 1.0, 1.0 / TELLING_WEIGHT)
    return weights * (labels != -100)


def _talks(
    scene: Scene, recipe: Recipe, rng: np.random.Generator, lesson: bool, questions: int
) -> list[Talk]:
    """What is said about a scene in one step, in separate conversations."""
    world = recipe.world
    talks = [description(scene, world, rng, absent_rate=recipe.absent_rate, drop_rate=recipe.drop_rate)]
    talks += [question(scene, world, rng) for _ in range(questions)]
    if lesson:
        talks.append(checklist(scene, world, rng))
    return talks


def training_texts(scenes: list[Scene], recipe: Recipe) -> list[str]:
    """Text that holds every word the model will need."""
    rng = np.random.default_rng([recipe.seed, 1])
    talks = [talk for scene in scenes for talk in _talks(scene, recipe, rng, lesson=True, questions=2)]
    return [f"USER: {asked} ASSISTANT:{''.join(text for text, _ in answer)}" for asked, answer in talks]


def _tokens(vlm: VLM, word: str) -> list[int]:
    ids: list[int] = vlm.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
    return ids
