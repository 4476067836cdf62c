"""The text-only objective against TRL's DPOTrainer: the same loss and gradients, and how much sooner.

    python benchmarks/trl_parity.py            # --quick for a short run

Both sides train the same LLaVA (8 layers of width 512, 576 image tokens, a 24-layer vision tower, vocabulary
32k) on the same rows for three epochs, in float32, with the same batches and optimizer, the language model in
whole or by LoRA. Ours makes its reference pass first, which is counted; TRL runs the reference in every step,
since it cannot store reference log-probabilities of rows with pictures. `loss_difference` and
`gradient_difference` (of the norm, over all parameters together) are those of one batch, for a policy that
has moved away from its reference.

`bound` is the ratio of the operations of the language model (`step_model.row_costs`), `operations` counts the
vision tower too, which TRL runs for every sequence of every pass. Times are CPU seconds of the process.
Memory is the peak resident size of a fresh process over a training step of eight rows, less its size when the
models are loaded. The last line is one line of JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
import warnings
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Image, List
from peft import LoraConfig
from PIL import Image as PILImage
from trl import DPOConfig, DPOTrainer

from mfpo.data.images import open_image
from mfpo.difficulty.scores import ReferenceScores, compute_scores
from mfpo.models.load import VLM
from mfpo.models.packing import set_tree_attention
from mfpo.models.vision import ImageEncoder, parameter_parts
from mfpo.preferences.encoding import EncodedRows, RowEncoder
from mfpo.records import ImageSource, Noise, PreferencePair, assistant_message, user_message
from mfpo.scenes.llava import LlavaSize, create_llava
from mfpo.training.arguments import training_arguments
from mfpo.training.batching import PreferenceCollator, Turn, TurnDataset
from mfpo.training.config import TrainConfig
from mfpo.training.objectives import Loss, get_objective
from mfpo.training.parameters import lora_targets, prepare_model
from mfpo.training.reference import CopyReference, PrecomputedReference, Reference
from mfpo.training.trainer import PreferenceTrainer
from step_model import Mode, Shape, row_costs, vision_cost
from train_step import EPOCHS, SHARED, memory_of_process, step_memory_of, table

SHAPE = Shape(intermediate=1536, prompt=20)
KINDS = ("chosen", "rejected")
BETA, RATE = 0.1, 1e-6
SYLLABLES = ("ka", "lo", "mi", "ne", "pu", "ra", "so", "ti", "vo", "ze")
WORDS = [a + b + c for a in SYLLABLES for b in SYLLABLES for c in SYLLABLES]


def make_vlm() -> VLM:
    """A random LLaVA of `SHAPE` with a processor."""
    size = LlavaSize(
        image_size=336,
        patch_size=14,
        vision_width=SHAPE.vision_hidden,
        vision_layers=SHAPE.vision_layers,
        text_width=SHAPE.hidden,
        text_layers=SHAPE.layers,
        vocab_size=4000,
    )
    vlm = create_llava([" ".join(WORDS)] * 3, size)
    vlm.model.resize_token_embeddings(SHAPE.vocabulary)
    # TRL takes the first token from the template.
    vlm.processor.chat_template = "{{ bos_token }}" + vlm.processor.chat_template
    return vlm


def make_pairs(count: int) -> list[PreferencePair]:
    """Rows with random pictures and answers of 60 to 120 words, which are about as many tokens."""
    pairs = []
    for i in range(count):
        rng = np.random.default_rng(i)
        buffer = io.BytesIO()
        PILImage.fromarray(rng.integers(0, 256, (336, 336, 3), dtype=np.uint8)).save(buffer, "PNG")
        chosen, rejected = (
            assistant_message(" ".join(rng.choice(WORDS, rng.integers(SHAPE.shortest, SHAPE.longest))))
            for _ in range(2)
        )
        pairs.append(
            PreferencePair(
                id=f"{i:016x}",
                images=(ImageSource(data=buffer.getvalue()),),
                prompt=user_message("Describe the image."),
                chosen=chosen,
                rejected=rejected,
                regions=(),
                noise=Noise(seed=i),
            )
        )
    return pairs


def train_config(mode: Mode, batch_size: int, folder: str) -> TrainConfig:
    """Our settings."""
    return TrainConfig(
        output_dir=folder,
        learning_rate=RATE,
        warmup_ratio=0.0,
        lr_scheduler_type="constant",
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=1,
        use_lora=mode == "lora",
        lora_r=SHAPE.lora_rank,
        lora_alpha=SHAPE.lora_rank,
        trainer={"disable_tqdm": True, "weight_decay": 0.0, "max_grad_norm": 0.0},
    )


def our_trainer(
    vlm: VLM, pairs: list[PreferencePair], mode: Mode, batch_size: int, reference: Any, folder: str
) -> tuple[PreferenceTrainer, Any]:
    """Our trainer, and a function that makes its reference pass."""
    config = train_config(mode, batch_size, folder)
    model = prepare_model(vlm.model, config, name="model")
    for part in (model, reference):
        if part is not None:
            set_tree_attention(part, True)
    rows = EncodedRows(pairs, RowEncoder(vlm.processor, rejected_image=False))
    images = ImageEncoder(model)
    order = [Turn(i, 1) for _ in range(EPOCHS) for i in range(len(pairs))]
    turns = TurnDataset(rows, order, None, KINDS)
    objective = get_objective("dpo")
    used: Reference = CopyReference(reference) if reference is not None else PrecomputedReference()
    trainer = PreferenceTrainer(
        model,
        training_arguments(config, "float32", torch.device("cpu")),
        turns=turns,
        collator=PreferenceCollator(KINDS, rows.encoder.pad_token_id, SHARED),
        loss=Loss(objective, objective.weights, BETA, 0.0),
        reference=used,
        images=images,
        processor=vlm.processor,
    )

    def reference_pass() -> None:
        turns.reference = compute_scores(
            model, rows, images, KINDS, batch_size=batch_size, layout=SHARED, progress=False
        )[0]

    return trainer, reference_pass


def trl_trainer(
    vlm: VLM, pairs: list[PreferencePair], mode: Mode, batch_size: int, reference: Any, folder: str
) -> DPOTrainer:
    """TRL's trainer on the same rows, model parts and optimizer."""
    data = Dataset.from_dict(
        {
            "images": [[open_image(pair.images[0])] for pair in pairs],
            **{name: [getattr(pair, name) for pair in pairs] for name in ("prompt", *KINDS)},
        }
    ).cast_column("images", List(Image()))
    for _, parameter, part in parameter_parts(vlm.model):
        parameter.requires_grad_(part == "language")
    rank = SHAPE.lora_rank
    lora = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=lora_targets(vlm.model, None), task_type="CAUSAL_LM"
    )
    return DPOTrainer(
        model=vlm.model,
        ref_model=reference,
        args=DPOConfig(
            output_dir=folder,
            beta=BETA,
            max_length=None,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            per_device_train_batch_size=batch_size,
            num_train_epochs=EPOCHS,
            weight_decay=0.0,
            max_grad_norm=0.0,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            logging_steps=10**6,
        ),
        train_dataset=data,
        processing_class=vlm.processor,
        peft_config=lora if mode == "lora" else None,
    )


def moved(vlm: VLM) -> VLM:
    """The policy a few steps away from its reference."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in vlm.model.parameters():
            parameter.add_(0.002 * torch.randn(parameter.shape, generator=generator))
    return vlm


def parity(pairs: list[PreferencePair], folder: str) -> tuple[float, float]:
    """Difference of the loss, and of the gradients relative to their norm, on one batch."""
    losses, gradients = [], []
    for side in ("ours", "trl"):
        vlm, reference = moved(make_vlm()), make_vlm().model
        if side == "ours":
            trainer, _ = our_trainer(vlm, pairs, "full", len(pairs), reference, folder)
            batch: Any = trainer.data_collator([trainer.train_dataset[i] for i in range(len(pairs))])
        else:
            trainer = trl_trainer(vlm, pairs, "full", len(pairs), reference, folder)
            batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(pairs))])
        trainer.model.train()
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        losses.append(loss.item())
        gradients.append({n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    names = list(gradients[1])
    error = sum((gradients[0][n] - gradients[1][n]).square().sum() for n in names)
    size = sum(gradients[1][n].square().sum() for n in names)
    return abs(losses[0] - losses[1]), float((error / size) ** 0.5)


def seconds(
    side: str, pairs: list[PreferencePair], mode: Mode, batch_size: int, folder: str
) -> tuple[float, float]:
    """CPU and wall seconds of a training, with our reference pass."""
    vlm = make_vlm()
    if side == "ours":
        trainer, prepare = our_trainer(vlm, pairs, mode, batch_size, None, folder)
    else:
        reference = make_vlm().model if mode == "full" else None
        trainer, prepare = trl_trainer(vlm, pairs, mode, batch_size, reference, folder), lambda: None
    cpu, wall = time.process_time(), time.perf_counter()
    prepare()
    trainer.train()
    return time.process_time() - cpu, time.perf_counter() - wall


def memory(side: str, mode: Mode, folder: str) -> int:
    """Growth of the resident size over a training step of eight rows, in bytes."""
    pairs, vlm = make_pairs(8), make_vlm()
    if side == "ours":
        trainer, _ = our_trainer(vlm, pairs, mode, 8, None, folder)
        names = [pair.id for pair in pairs]
        trainer.train_dataset.reference = ReferenceScores(names, {k: torch.zeros(8) for k in KINDS}, {})
    else:
        reference = make_vlm().model if mode == "full" else None
        trainer = trl_trainer(vlm, pairs, mode, 8, reference, folder)
    trainer.args.max_steps = 1
    return step_memory_of(trainer.train)


def bounds(mode: Mode) -> dict[str, float]:
    """Ratio of operations, TRL's over ours: of the language model, and of everything."""
    costs, picture = row_costs(SHAPE, mode, kinds=2), vision_cost(SHAPE)
    ours = costs["shared"].flops + costs["shared reference"].flops / EPOCHS
    theirs = costs["plain"].flops + costs["plain reference"].flops
    return {
        "bound": theirs / ours,
        "operations": (theirs + 4 * picture) / (ours + picture / EPOCHS),
    }


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2, help="the sides take turns; the best time counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--modes", nargs="+", choices=("full", "lora"), default=["full", "lora"])
    parser.add_argument("--quick", action="store_true", help="two rows, once, no memory")
    parser.add_argument("--skip_memory", action="store_true")
    parser.add_argument("--memory_of", choices=("ours", "trl"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    if args.quick:
        args.rows, args.batch_size, args.repeats, args.skip_memory = 2, 2, 1, True
    folder = tempfile.mkdtemp()
    if args.memory_of:
        print(memory(args.memory_of, args.modes[0], folder))
        return
    pairs = make_pairs(args.rows)
    result: dict[str, float] = {}
    result["loss_difference"], result["gradient_difference"] = parity(pairs[:2], folder)
    lines = []
    for mode in args.modes:
        times: dict[str, list[tuple[float, float]]] = {"ours": [], "trl": []}
        for _ in range(args.repeats):
            for side, taken in times.items():
                taken.append(seconds(side, pairs, mode, args.batch_size, folder))
        best = {side: min(taken) for side, taken in times.items()}
        result[f"ratio_trl_{mode}"] = best["trl"][0] / best["ours"][0]
        result |= {f"{name}_{mode}": value for name, value in bounds(mode).items()}
        for side, (cpu, wall) in best.items():
            line: dict[str, Any] = {"mode": mode, "side": side, "cpu_s": cpu, "wall_s": wall}
            line["ours_is_faster"] = cpu / best["ours"][0]
            if not args.skip_memory:
                line["peak_mb"] = memory_of_process([__file__, "--memory_of", side, "--modes", mode]) / 1e6
                result[f"peak_mb_{side}_{mode}"] = line["peak_mb"]
            lines.append(line)
    result["ratio_trl"] = min(result[f"ratio_trl_{mode}"] for mode in args.modes)
    print(table(lines))
    print(json.dumps({name: float(f"{value:.4g}") for name, value in result.items()}))


if __name__ == "__main__":
    main()
