"""A training step of a LLaVA-1.5-7B on one GPU: `mfpo train` in several ways, published code and TRL.

    python benchmarks/gpu_step.py                         # all sides
    python benchmarks/gpu_step.py --tiny                  # a small model, and the sides that a CPU has
    python benchmarks/gpu_step.py --sides ours plain trl
    python benchmarks/gpu_step.py --accuracy              # errors of bfloat16, shared prompts against plain

The model has the shape of LLaVA-1.5-7B and random weights; its checkpoint, with tokenizer and rows, is
written once to `--folder` (14 GB; with `--tiny` to another one, some MB). Rows have pictures of 336 pixels,
which are 576 tokens, and answers of 60 to 120 words of about a token. LoRA of rank 128 on the language
model, frozen weights in bfloat16, gradient checkpointing, batches of four rows, three epochs, AdamW.

`ours` is `mfpo train` as it comes; `plain` is `mfpo train --shared_prefix off --reference adapter`: six plain
sequences a row in each step, logits at response positions only. `published` encodes pictures in every pass
and takes float32 logits of the whole vocabulary at every position, as published code does. `dpo` and `trl`
are the text-only objective here and in TRL's DPOTrainer. `4-bit` comes last, as it loads the model anew.

`step_s` is the median over steps, the first two left out, without the reading of rows; `with_data_s` the mean
with it; `row_s` a row's part of a step and a third of its reference pass. TFLOP/s count what a step must do
(`step_model.row_costs`), without what checkpointing does again. The last line is one line of JSON.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration, TrainerCallback

from mfpo.data.folder import open_dataset
from mfpo.data.writer import DatasetWriter
from mfpo.difficulty.config import Precision
from mfpo.difficulty.scores import compute_scores
from mfpo.models.load import VLM, default_device, load_vlm
from mfpo.models.logprobs import PLAIN, Layout, score_responses
from mfpo.models.packing import set_tree_attention
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.collate import collate
from mfpo.preferences.encoding import SEQUENCES, EncodedRows, RowEncoder
from mfpo.preferences.regions.masks import encode_rle
from mfpo.records import ImageSource, Noise, PreferencePair, Region, assistant_message, user_message
from mfpo.scenes.llava import LlavaSize, create_llava, save_llava
from mfpo.training.config import TrainConfig
from mfpo.training.objectives import Loss, SequenceLogps, get_objective
from mfpo.training.parameters import prepare_model
from mfpo.training.train import train
from step_model import RandomRows, Shape, make_config, make_model, row_costs
from train_step import EPOCHS, SHARED, answers_of, published_logps, table

LLAVA_7B = Shape(
    vocabulary=32_064,
    hidden=4096,
    layers=32,
    heads=32,
    intermediate=11_008,
    vision_hidden=1024,
    prompt=20,
    lora_rank=128,
)
TINY = Shape(
    vocabulary=4096, hidden=128, layers=2, heads=4, intermediate=256, vision_layers=2, prompt=20, lora_rank=8
)
SYLLABLES = ("ka", "lo", "mi", "ne", "pu", "ra", "so", "ti", "vo", "ze")
WORDS = [a + b + c for a in SYLLABLES for b in SYLLABLES for c in SYLLABLES]
SIDES: dict[str, dict[str, Any]] = {
    "ours": {},
    "flex": {"attn_implementation": "flex_attention"},
    "plain": {"shared_prefix": "off", "reference": "adapter"},
    "published": {},
    "dpo": {"objective": "dpo"},
    "trl": {"objective": "dpo"},
    "4-bit": {"load_in_4bit": True},
}
"""Settings of `mfpo train` that are a side's own. `4-bit` comes last, since its model stays loaded."""
KERNELS = ("sdpa", "eager", "flex_attention")
GPU_ONLY = ("flex", "4-bit")
LEFT_OUT = 2
"""Steps at the beginning that are not counted: kernels are compiled and memory is taken from the system."""


def write_model(folder: Path, shape: Shape) -> None:
    """A checkpoint of random weights, with tokenizer and processor."""
    size = LlavaSize(image_size=336, patch_size=14, vision_layers=1, text_layers=1, vocab_size=4000)
    vlm = create_llava([" ".join(WORDS)] * 3, size)
    # TRL takes the first token from the template.
    vlm.processor.chat_template = "{{ bos_token }}" + vlm.processor.chat_template
    tokenizer = vlm.tokenizer
    config = make_config(shape, vlm.model.config.image_token_id)
    text = config.text_config
    text.bos_token_id, text.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    text.pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(0)
    with torch.device(default_device()):
        torch.set_default_dtype(torch.bfloat16)
        vlm.model = LlavaForConditionalGeneration(config)
        torch.set_default_dtype(torch.float32)
    save_llava(vlm, str(folder))


def write_rows(folder: Path, shape: Shape, count: int) -> None:
    """A dataset folder whose rows have a picture and a region each."""
    mask = np.zeros((336, 336), dtype=bool)
    mask[80:220, 100:260] = True
    region = Region("mug", (100.0, 80.0, 260.0, 220.0), 1.0, encode_rle(mask), (336, 336))
    with DatasetWriter(folder) as writer:
        for number in range(count):
            rng = np.random.default_rng(number)
            small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
            buffer = io.BytesIO()
            small.resize((336, 336), Image.Resampling.BICUBIC).save(buffer, "JPEG")
            answers = [
                " ".join(rng.choice(WORDS, rng.integers(shape.shortest, shape.longest))) for _ in range(2)
            ]
            writer.write(
                PreferencePair(
                    id=f"{number:016x}",
                    images=(ImageSource(data=buffer.getvalue()),),
                    prompt=user_message("Describe the image."),
                    chosen=assistant_message(answers[0]),
                    rejected=assistant_message(answers[1]),
                    regions=(region,),
                    noise=Noise(seed=number),
                )
            )


class StepTimes(TrainerCallback):
    """Seconds of every step, the device's work included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.allocated = self.peak = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        synchronize()
        if not self.seconds and torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self.allocated = torch.cuda.memory_allocated()
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop it."""
        synchronize()
        self.seconds.append(time.perf_counter() - self.started)
        if torch.cuda.is_available():
            self.peak = torch.cuda.max_memory_allocated()


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def settings(side: str, folder: Path, shape: Shape, batch_size: int) -> TrainConfig:
    """Settings of `mfpo train` on a side."""
    return TrainConfig(
        dataset=str(folder / "rows"),
        model_name_or_path=str(folder / "model"),
        output_dir=str(folder / "runs" / side),
        stages="none",
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=1,
        gradient_checkpointing=True,
        use_lora=True,
        lora_r=shape.lora_rank,
        lora_alpha=2 * shape.lora_rank,
        learning_rate=1e-5,
        warmup_ratio=0.0,
        lr_scheduler_type="constant",
        max_length=None,
        plot_every=0,
        trainer={"disable_tqdm": True},
        **SIDES[side],
    )


def measure(side: str, vlm: VLM, config: TrainConfig, shape: Shape) -> dict[str, Any]:
    """Seconds and memory of one side; the model is given back as it was."""
    vlm.model.set_attn_implementation(config.attn_implementation or "sdpa")
    times, reference, layout, whole = StepTimes(), 0.0, PLAIN, None
    started = time.perf_counter()
    if side == "trl":
        adapted = train_by_trl(vlm, config, times)
    elif side == "published":
        adapted = train_as_published(vlm, config, times)
    else:
        result = train(vlm, open_dataset(config.dataset), config, callbacks=[times])
        assert result is not None
        adapted = result.vlm.model
        layout, whole = result.layout, result.seconds / result.steps
        if config.reference == "precomputed":
            with adapted.disable_adapter():
                reference = reference_seconds(replace(vlm, model=adapted), config, layout)
    vlm.model = adapted.unload()
    step = statistics.median(times.seconds[LEFT_OUT:])
    batch_size = config.per_device_train_batch_size
    costs = row_costs(shape, "lora", 2 if config.objective == "dpo" else 3)
    laid_out = "shared" if layout.shared else "plain"
    flops = costs[laid_out].flops + (0 if reference else costs[f"{laid_out} reference"].flops)
    line: dict[str, Any] = {
        "side": side,
        "layout": laid_out,
        "step_s": step,
        "first_s": times.seconds[0],
        "reference_s_row": reference,
        "row_s": step / batch_size + reference / EPOCHS,
        "tflops": batch_size * flops / step / 1e12,
        "with_data_s": whole,
        "all_s": time.perf_counter() - started,
    }
    if torch.cuda.is_available():
        line |= {"before_gb": times.allocated / 1e9, "peak_gb": times.peak / 1e9}
    return line


def reference_seconds(vlm: VLM, config: TrainConfig, layout: Layout) -> float:
    """Seconds a row of the reference pass, the encoding of its pictures included."""
    kinds = SEQUENCES if config.objective == "mfpo" else SEQUENCES[:2]
    rows = EncodedRows(open_dataset(config.dataset), RowEncoder(vlm.processor, max_length=None))
    size = config.per_device_train_batch_size
    images = ImageEncoder(vlm.model)
    synchronize()
    started = time.perf_counter()
    precision: Precision = "bfloat16" if vlm.model.dtype == torch.bfloat16 else "float32"
    options: dict[str, Any] = {"batch_size": size, "layout": layout, "precision": precision}
    compute_scores(vlm.model, rows, images, kinds, progress=False, **options)
    synchronize()
    return (time.perf_counter() - started) / len(rows)


def train_as_published(vlm: VLM, config: TrainConfig, times: StepTimes) -> Any:
    """The objective mfpo with a vision encode and whole float32 logits in every pass, reference online."""
    rows = EncodedRows(open_dataset(config.dataset), RowEncoder(vlm.processor, max_length=None))
    model: Any = prepare_model(vlm.model, config, name="model")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    model.train()
    images = ImageEncoder(model, share=False)
    objective = get_objective("mfpo")
    loss = Loss(objective, objective.weights, beta=0.1, eta=0.0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    size = config.per_device_train_batch_size
    for start in list(range(0, len(rows), size)) * EPOCHS:
        batch = [rows[index] for index in range(start, start + size)]
        times.on_step_begin(None, None, None)
        with torch.autocast(vlm.device.type, dtype=torch.bfloat16):
            with torch.no_grad(), model.disable_adapter():
                reference = SequenceLogps(**published_logps(model, images, batch))
            policy = SequenceLogps(**published_logps(model, images, batch))
        loss(policy, reference, answers_of(batch)).loss.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        times.on_step_end(None, None, None)
    return model


def train_by_trl(vlm: VLM, config: TrainConfig, times: StepTimes) -> Any:
    """TRL's DPOTrainer on the same rows, with the same adapter."""
    from datasets import Dataset, List
    from datasets import Image as ImageFeature
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    from mfpo.data.images import open_image
    from mfpo.training.parameters import lora_targets

    pairs = list(open_dataset(config.dataset))
    data = Dataset.from_dict(
        {
            "images": [[open_image(pair.images[0])] for pair in pairs],
            **{name: [getattr(pair, name) for pair in pairs] for name in ("prompt", "chosen", "rejected")},
        }
    ).cast_column("images", List(ImageFeature()))
    trainer = DPOTrainer(
        model=vlm.model,
        args=DPOConfig(
            output_dir=tempfile.mkdtemp(),
            max_length=None,
            learning_rate=1e-5,
            lr_scheduler_type="constant",
            per_device_train_batch_size=config.per_device_train_batch_size,
            num_train_epochs=EPOCHS,
            save_strategy="no",
            report_to="none",
            bf16=vlm.device.type == "cuda",
            use_cpu=vlm.device.type == "cpu",
            gradient_checkpointing=True,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            disable_tqdm=True,
            logging_steps=10**6,
        ),
        train_dataset=data,
        processing_class=vlm.processor,
        peft_config=LoraConfig(
            r=config.lora_r,
            lora_alpha=config.lora_alpha,
            target_modules=lora_targets(vlm.model, None),
            task_type="CAUSAL_LM",
        ),
        callbacks=[times],
    )
    trainer.train()
    return trainer.model


def accuracy(kernels: Sequence[str]) -> list[dict[str, Any]]:
    """Errors in bfloat16 against float32, of shared prompts by each kernel and of plain sequences.

    Log-probabilities of tokens (largest difference) and gradients of all weights (relative to their norm)
    of a LLaVA of eight layers, on four rows.
    """
    shape = Shape(vocabulary=4096)
    device = default_device()
    rows = RandomRows(shape, 4)

    def scored(dtype: torch.dtype, kernel: str, layout: Layout) -> tuple[torch.Tensor, list[torch.Tensor]]:
        model = make_model(shape, "full").to(device, dtype)
        model.set_attn_implementation(kernel)
        set_tree_attention(model, layout.shared)
        batch = collate(rows, SEQUENCES, 0, layout).to(device)
        pictures = [replace(image, tensors=cast(image.tensors, dtype)) for image in batch.images]
        scores = score_responses(model, replace(batch, images=pictures), ImageEncoder(model))
        (scores.logps * torch.linspace(-1, 1, len(scores.logps), device=device)).sum().backward()
        grads = [p.grad.float().cpu() for p in model.parameters() if p.grad is not None]
        return scores.token_logps.detach().float().cpu(), grads

    # Tensor cores would round float32.
    torch.backends.cuda.matmul.allow_tf32 = False
    exact, exact_grads = scored(torch.float32, "sdpa", PLAIN)
    size = sum(grad.square().sum() for grad in exact_grads) ** 0.5
    lines = []
    ways = [("sdpa", PLAIN), *((kernel, SHARED) for kernel in kernels)]
    for dtype in (torch.float32, torch.bfloat16):
        for kernel, layout in ways:
            logps, grads = scored(dtype, kernel, layout)
            error = sum((a - b).square().sum() for a, b in zip(grads, exact_grads, strict=True)) ** 0.5
            lines.append(
                {
                    "dtype": str(dtype).removeprefix("torch."),
                    "kernel": kernel,
                    "layout": "shared" if layout.shared else "plain",
                    "logps": (logps - exact).abs().max().item(),
                    "logps_mean": (logps - exact).abs().mean().item(),
                    "gradients": float(error / size),
                }
            )
    return lines


def cast(tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Pixels in a precision."""
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }


def report(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Ratios between the sides that were measured."""
    rows = {line["side"]: line for line in lines if "row_s" in line}
    pairs = {
        "ratio_plain": ("plain", "ours"),
        "ratio_published": ("published", "ours"),
        "ratio_trl": ("trl", "dpo"),
    }
    return {
        name: rows[slow]["row_s"] / rows[fast]["row_s"]
        for name, (slow, fast) in pairs.items()
        if slow in rows and fast in rows
    }


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", nargs="+", choices=SIDES, help="all that the machine has if not given")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument(
        "--folder", help="for the checkpoint, the rows and what is trained; runs/gpu-step if not given"
    )
    parser.add_argument("--tiny", action="store_true", help="a model of two layers")
    parser.add_argument("--accuracy", action="store_true", help="errors of bfloat16, and no times")
    parser.add_argument("--write", action="store_true", help="write checkpoint and rows, and stop")
    parser.add_argument("--kernels", nargs="+", default=KERNELS)
    args = parser.parse_args()
    if args.rows * EPOCHS // args.batch_size <= LEFT_OUT:
        parser.error(f"--rows {args.rows}: more than {LEFT_OUT} steps of --batch_size rows are needed")
    shape = TINY if args.tiny else LLAVA_7B
    folder = Path(args.folder or ("runs/gpu-step-tiny" if args.tiny else "runs/gpu-step"))
    sides = args.sides or [side for side in SIDES if torch.cuda.is_available() or side not in GPU_ONLY]
    if args.accuracy:
        lines = accuracy(args.kernels)
        print(table(lines))
        print(json.dumps(lines))
        return
    if not (folder / "model" / "config.json").is_file():
        write_model(folder / "model", shape)
    if not (folder / "rows" / "manifest.json").is_file():
        write_rows(folder / "rows", shape, args.rows)
    if args.write:
        return
    warnings.simplefilter("ignore")
    lines: list[dict[str, Any]] = []
    vlm = load(folder)
    for side in sides:
        config = settings(side, folder, shape, args.batch_size)
        if config.load_in_4bit:
            del vlm
            vlm = load(folder, load_in_4bit=True)
        lines.append(measure(side, vlm, config, shape))
        print(json.dumps(lines[-1]), flush=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    print(table(lines))
    print(json.dumps({"sides": lines, **report(lines)}))


def load(folder: Path, **options: Any) -> VLM:
    """The model of the folder, with the options of `load_vlm`; prints how long it took."""
    started = time.perf_counter()
    vlm = load_vlm(str(folder / "model"), **options)
    synchronize()
    print(f"loaded in {time.perf_counter() - started:.1f} s")
    return vlm


if __name__ == "__main__":
    main()
