"""How much faster a preference step is here than in other ways, and how far from the bound.

    python benchmarks/train_step.py            # the whole table; --quick for a short run
    python benchmarks/train_step.py --growth   # how cost grows with image tokens, answers, vocabulary and
    rows

Three sides train the same rows for three epochs with the objective `mfpo`, by the same optimizer, interleaved
in one process; batches, model and checkpointing are the same. `ours` is what `mfpo train` does: the reference
pass first, then steps in the shared layout. `plain` is our own exact plain path: three policy and three
reference sequences a row in each step, logits at response positions only, every picture encoded once.
`published` is how published code for multimodal preferences works: the vision tower in every forward pass,
float32 logits of the whole vocabulary at every position, the reference model in every step.

Times are CPU seconds of the process, since other processes may share the machine; wall time stands beside
them. The bound is the ratio of the operations of matrix products and attention (`step_model.row_costs`),
which no implementation of the same layouts can beat by doing less. Memory is the peak resident size of a
fresh process over a step of eight rows, less its size when model and reference are loaded. The last line is
one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from mfpo.difficulty.scores import ReferenceScores, compute_scores
from mfpo.models.logprobs import IGNORE, PLAIN, Layout, score_responses
from mfpo.models.packing import set_tree_attention
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.collate import collate
from mfpo.preferences.encoding import SEQUENCES, EncodedRow
from mfpo.training.objectives import Answers, BySequence, Loss, SequenceLogps, get_objective
from step_model import Mode, RandomRows, Shape, make_model, reference_copy, row_costs, vision_cost

SHARED = Layout(shared=True, chunked=True)
EPOCHS = 3
SIDES = ("ours", "plain", "published")
Step = Callable[[Sequence[EncodedRow]], None]


@dataclass
class Meter:
    """Time of one side.

    Attributes:
        cpu: CPU seconds of each epoch, what precedes the first included in it.
        wall: Wall seconds likewise.
    """

    cpu: list[float] = field(default_factory=lambda: [0.0] * EPOCHS)
    wall: list[float] = field(default_factory=lambda: [0.0] * EPOCHS)

    def run(self, epoch: int, work: Callable[[], Any]) -> Any:
        """Do some work and count its time."""
        cpu, wall = time.process_time(), time.perf_counter()
        result = work()
        self.cpu[epoch] += time.process_time() - cpu
        self.wall[epoch] += time.perf_counter() - wall
        return result


class Side:
    """A model in training by one of the ways.

    Args:
        name: One of ``SIDES``.
        shape: Sizes of the model.
        mode: ``full`` or ``lora``.
    """

    def __init__(self, name: str, shape: Shape, mode: Mode) -> None:
        self.name = name
        self.model = make_model(shape, mode)
        self.reference = reference_copy(self.model) if name != "ours" and mode == "full" else None
        self.images = ImageEncoder(self.model, share=name != "published")
        self.reference_images = (
            ImageEncoder(self.reference, share=name != "published") if self.reference else self.images
        )
        self.optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=1e-6)
        objective = get_objective("mfpo")
        self.loss = Loss(objective, objective.weights, beta=0.1, eta=0.0)
        self.scores: ReferenceScores | None = None
        set_tree_attention(self.model, name == "ours")

    def prepare(self, rows: Any, batch_size: int) -> None:
        """The reference pass, which only our side makes."""
        if self.name == "ours":
            self.scores, _ = compute_scores(
                self.model,
                rows,
                self.images,
                SEQUENCES,
                batch_size=batch_size,
                layout=SHARED,
                progress=False,
            )

    def step(self, rows: Sequence[EncodedRow]) -> None:
        """One optimizer step."""
        policy = self._logps(self.model, self.images, rows)
        if self.scores is not None:
            stored = [self.scores.logps_of(row.id, SEQUENCES) for row in rows]
            reference = {name: torch.tensor([row[name] for row in stored]) for name in SEQUENCES}
        else:
            with torch.no_grad():
                if self.reference is not None:
                    reference = self._logps(self.reference, self.reference_images, rows)
                else:
                    with self.model.disable_adapter():
                        reference = self._logps(self.model, self.images, rows)
        output = self.loss(SequenceLogps(**policy), SequenceLogps(**reference), answers_of(rows))
        output.loss.mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _logps(self, model: Any, images: ImageEncoder, rows: Sequence[EncodedRow]) -> dict[str, torch.Tensor]:
        if self.name == "published":
            return published_logps(model, images, rows)
        batch = collate(rows, SEQUENCES, 0, SHARED if self.name == "ours" else PLAIN)
        logps = score_responses(model, batch, images).logps.chunk(len(SEQUENCES))
        return dict(zip(SEQUENCES, logps, strict=True))


def answers_of(rows: Sequence[EncodedRow]) -> Answers:
    """Their tokens, as the objectives take them."""
    labels = collate(rows, SEQUENCES, 0, SHARED).labels.chunk(len(SEQUENCES))
    return Answers(BySequence(*(part != IGNORE for part in labels)), BySequence(*labels))


def published_logps(model: Any, images: ImageEncoder, rows: Sequence[EncodedRow]) -> dict[str, torch.Tensor]:
    """y_w and y_l in one forward pass, (m', y_w) in another, each with pixels and all logits in float32."""
    logps: dict[str, torch.Tensor] = {}
    for kinds in (SEQUENCES[:2], SEQUENCES[2:]):
        batch = collate(rows, kinds, 0).to(next(model.parameters()).device)
        inputs = {**batch.inputs, **images(batch.images, batch.image_of), "use_cache": False}
        labels = torch.full_like(batch.inputs["input_ids"], -100)
        labels[:, -batch.labels.shape[1] :] = batch.labels
        log_probs = model(**inputs).logits[:, :-1].float().log_softmax(-1)
        targets, mask = labels[:, 1:].clamp(min=0), labels[:, 1:] != -100
        sums = (log_probs.gather(-1, targets[..., None])[..., 0] * mask).sum(-1)
        logps |= dict(zip(kinds, sums.chunk(len(kinds)), strict=True))
    return logps


def measure(
    shape: Shape, mode: Mode, rows: RandomRows, batch_size: int, sides: Sequence[str]
) -> dict[str, Meter]:
    """Train the sides, batch by batch in turn."""
    trained = {name: Side(name, shape, mode) for name in sides}
    meters = {name: Meter() for name in sides}
    for name, side in trained.items():
        meters[name].run(0, lambda side=side: side.prepare(rows, batch_size))
    for epoch in range(EPOCHS):
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            for name, side in trained.items():
                meters[name].run(epoch, lambda side=side, batch=batch: side.step(batch))
    return meters


def bound(shape: Shape, mode: Mode, epochs: int | None = EPOCHS) -> float:
    """Operations of `plain` over those of `ours`; None for a reference that is there already."""
    costs = row_costs(shape, mode)
    passes = 1 / epochs if epochs else 0.0
    pictures = 2 * vision_cost(shape) / epochs if epochs else 0.0
    ours = costs["shared"].flops + passes * costs["shared reference"].flops + pictures
    return (costs["plain"].flops + costs["plain reference"].flops + pictures) / ours


def padding(rows: RandomRows, batch_size: int) -> dict[str, float]:
    """Share of the positions that hold no token, of `ours` and `plain`."""
    shares = {}
    for name, layout in (("ours", SHARED), ("plain", PLAIN)):
        batches = [
            collate(rows[start : start + batch_size], SEQUENCES, 0, layout)
            for start in range(0, len(rows), batch_size)
        ]
        empty = sum(batch.padding * batch.tokens for batch in batches)
        shares[f"padding_{name}"] = empty / sum(batch.tokens for batch in batches)
    return shares


def peak_memory(side: str, mode: Mode, vocabulary: int) -> int:
    """Peak bytes over a step of eight rows, by a fresh process."""
    options = ["--memory_of", side, "--modes", mode, "--vocabulary", str(vocabulary)]
    return memory_of_process([__file__, *options])


def memory_of_process(command: Sequence[str]) -> int:
    """What a fresh interpreter prints as its last word.

    Blocks from 1 MiB on are given back to the system at once, so that it counts what is in use: by default
    glibc keeps freed blocks of up to 32 MiB, and the resident size depends on whether a tensor is below or
    above that.
    """
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    result = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True, env=env)
    return int(result.stdout.split()[-1])


def step_memory(side: Side, rows: RandomRows) -> int:
    """Growth of the resident size over one step, in bytes."""
    if side.name == "ours":
        side.scores = known_scores(rows)
    return step_memory_of(lambda: side.step(rows))


def known_scores(rows: RandomRows) -> ReferenceScores:
    """Scores as a reference pass leaves them; what they say changes no time."""
    return ReferenceScores(rows.ids, {name: torch.zeros(len(rows)) for name in SEQUENCES}, {})


def step_memory_of(work: Callable[[], Any]) -> int:
    """Growth of this process's peak resident size over some work, in bytes; Linux only."""
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    work()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


GROWTH = {
    "image_tokens": [{"image_tokens": 36}, {"image_tokens": 576}, {"image_tokens": 2880, "tiles": 5}],
    "answer": [{"shortest": n, "longest": n} for n in (60, 120, 300)],
    "vocabulary": [{"vocabulary": 32_000}, {"vocabulary": 152_000}],
}
"""Changes of the shape, by what grows."""


def growth(shape: Shape, mode: Mode, timed: bool) -> Iterator[dict[str, Any]]:
    """One line for each change: cost of a row on paper, and what its part of a training step took.

    Timed are the forward and backward pass and the optimizer's step of one row, with the reference's
    log-probabilities and the picture's features at hand, as in every epoch but the first, and the better of
    two times: the first step also takes its memory from the system. ``of_matmul`` is their speed over that of
    a large matrix product measured beside it.
    """
    for name, changes in GROWTH.items():
        for change in changes:
            changed = replace(shape, **change)
            costs = row_costs(changed, mode)
            line: dict[str, Any] = {
                "grows": name,
                "value": next(iter(change.values())),
                "gflops": costs["shared"].flops / 1e9,
                "plain_gflops": costs["plain"].flops / 1e9,
                "activation_mb": costs["shared"].bytes / 1e6,
                "bound": bound(changed, mode),
                "padding_plain": padding(RandomRows(changed, 16), 4)["padding_plain"],
            }
            if timed:
                side, rows = Side("ours", changed, mode), RandomRows(changed, 1)
                side.scores = known_scores(rows)
                side.images([rows[0].image, rows[0].rejected_image], [0, 1])
                line["cpu_s"] = min(cpu_seconds(lambda side=side, rows=rows: side.step(rows)) for _ in "ab")
                line["of_matmul"] = line["gflops"] / line["cpu_s"] / matmul_speed()
            yield line
    for rows in (1_000, 50_000):
        costs = row_costs(shape, mode)
        total = rows * (EPOCHS * costs["shared"].flops + costs["shared reference"].flops)
        # A row leaves its id, three log-probabilities and two entropies behind.
        yield {"grows": "rows", "value": rows, "tflops": total / 1e12, "stored_mb": rows * 44 / 1e6}


def matmul_speed() -> float:
    """GFLOP a CPU second of a large matrix product, which is what this machine can do at best."""
    side = 2048
    one, other = torch.randn(side, side), torch.randn(side, side)
    return 2 * side**3 / 1e9 / min(cpu_seconds(lambda: one @ other) for _ in range(5))


def cpu_seconds(work: Callable[[], Any]) -> float:
    """CPU seconds that some work takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Lines of equal keys as a table."""
    keys = list(dict.fromkeys(key for line in lines for key in line))
    cells = [keys] + [[_show(line.get(key, "")) for key in keys] for line in lines]
    widths = [max(len(row[i]) for row in cells) for i in range(len(keys))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells
    )


def _show(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def run(args: argparse.Namespace) -> dict[str, float]:
    """Time and memory of all sides in both modes."""
    shape = Shape(vocabulary=args.vocabulary)
    rows = RandomRows(shape, args.rows)
    result = padding(rows, args.batch_size)
    lines = []
    for mode in args.modes:
        sides = SIDES if mode == "full" else SIDES[:2]
        meters = measure(shape, mode, rows, args.batch_size, sides)
        ours = meters["ours"]
        result[f"ratio_plain_{mode}"] = sum(meters["plain"].cpu) / sum(ours.cpu)
        result[f"bound_{mode}"] = bound(shape, mode)
        result[f"ratio_plain_{mode}_cached"] = sum(meters["plain"].cpu[1:]) / sum(ours.cpu[1:])
        result[f"bound_{mode}_cached"] = bound(shape, mode, None)
        result[f"share_of_bound_{mode}"] = result[f"ratio_plain_{mode}"] / result[f"bound_{mode}"]
        if "published" in meters:
            result["ratio_published"] = sum(meters["published"].cpu) / sum(ours.cpu)
        for name, meter in meters.items():
            line: dict[str, Any] = {
                "mode": mode,
                "side": name,
                "cpu_s": sum(meter.cpu),
                "wall_s": sum(meter.wall),
            }
            line |= {f"cpu_epoch_{n}": cpu for n, cpu in enumerate(meter.cpu, 1)}
            line["ours_is_faster"] = sum(meter.cpu) / sum(ours.cpu)
            if not args.skip_memory:
                line["peak_mb"] = peak_memory(name, mode, args.vocabulary) / 1e6
                result[f"peak_mb_{name}_{mode}"] = line["peak_mb"]
            lines.append(line)
    if not args.skip_memory:
        for name in SIDES[1:]:
            for mode in ("full", "lora"):
                if f"peak_mb_{name}_{mode}" in result:
                    key = f"memory_ratio_{name}" + ("" if mode == "full" else "_lora")
                    result[key] = result[f"peak_mb_ours_{mode}"] / result[f"peak_mb_{name}_{mode}"]
    print(table(lines))
    return result


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--modes", nargs="+", choices=("full", "lora"), default=["full", "lora"])
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--quick", action="store_true", help="two rows instead of eight, no memory")
    parser.add_argument("--skip_memory", action="store_true")
    parser.add_argument("--growth", action="store_true", help="how cost grows, on paper and measured")
    parser.add_argument("--on_paper", action="store_true", help="with --growth: no measurement")
    parser.add_argument("--memory_of", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.quick:
        args.rows, args.batch_size, args.skip_memory = 2, 2, True
    shape = Shape(vocabulary=args.vocabulary)
    if args.memory_of:
        print(step_memory(Side(args.memory_of, shape, args.modes[0]), RandomRows(shape, 8)))
    elif args.growth:
        lines = list(growth(shape, args.modes[0], not args.on_paper))
        print(table(lines))
        print(json.dumps(lines))
    else:
        print(json.dumps({key: round(value, 4) for key, value in run(args).items()}))


if __name__ == "__main__":
    main()
