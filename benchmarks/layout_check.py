"""What the check of shared prompts allows in bfloat16, and what mistakes in the layout would show.

    python benchmarks/layout_check.py
    python benchmarks/layout_check.py --model_name_or_path CHECKPOINT --dataset FOLDER

Before training, the first rows are scored in plain sequences and with shared prompts. The difference may be
a small multiple of what the plain path itself changes by in other company or after one rounding of the
decoder's inputs. Without a checkpoint the model is a random LLaVA of eight layers, and the rows have 576
image tokens and answers of 60 to 120 tokens; a random model hardly minds where a token stands. `mean` and
`largest` are differences over tokens in nats, `of allowed` the larger of the two as a multiple of what is
allowed: below 1 passes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from mfpo.data.folder import open_dataset
from mfpo.difficulty.config import Precision
from mfpo.difficulty.scores import autocast_context
from mfpo.models.load import load_vlm
from mfpo.models.logprobs import Layout
from mfpo.preferences.encoding import SEQUENCES, EncodedRows, RowEncoder
from mfpo.preferences.layouts import CHECKED_ROWS, LayoutCheck

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from layout_mistakes import MISTAKES, made
from step_model import RandomRows, Shape, make_model
from train_step import table


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_name_or_path", help="a checkpoint in place of the random model")
    parser.add_argument("--dataset", help="its rows, a folder of `mfpo build`")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines = []
    precisions: tuple[Precision, ...] = ("bfloat16", "mixed")
    for precision in precisions:
        model, rows, pad = random_model(args) if args.model_name_or_path is None else given_model(args)
        model = model.bfloat16() if precision == "bfloat16" else model
        device = next(model.parameters()).device
        check = LayoutCheck(model, rows, SEQUENCES, pad, autocast_context(precision, device))
        lines.append(line(precision, "allowed", check.allowed, check))
        shared = Layout(shared=True)
        lines.append(line(precision, "right", check.differences(shared), check))
        for mistake in MISTAKES:
            with made(mistake):
                lines.append(line(precision, mistake, check.differences(shared), check))
    print(table(lines))


def random_model(args: argparse.Namespace) -> tuple[Any, Any, int]:
    """A random model, rows and the id of padding."""
    shape = Shape(
        hidden=args.width,
        layers=args.layers,
        heads=args.width // 64,
        intermediate=43 * args.width // 16,
        vocabulary=4096,
    )
    return make_model(shape, "full"), RandomRows(shape, CHECKED_ROWS), 0


def given_model(args: argparse.Namespace) -> tuple[Any, Any, int]:
    """The checkpoint, the first rows and the id of padding."""
    vlm = load_vlm(args.model_name_or_path, dtype="float32")
    rows = EncodedRows(open_dataset(args.dataset), RowEncoder(vlm.processor))
    return vlm.model, [rows[index] for index in range(CHECKED_ROWS)], rows.encoder.pad_token_id


def line(precision: str, name: str, found: tuple[float, float], check: LayoutCheck) -> dict[str, Any]:
    """One line of the table."""
    share = max(size / allowed for size, allowed in zip(found, check.allowed, strict=True))
    return {
        "precision": precision, "layout": name, "mean": found[0], "largest": found[1], "of allowed": share,
    }  # fmt: skip


if __name__ == "__main__":
    main()
