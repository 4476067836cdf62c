"""The optimiser that trains the small LLaVA from nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor, nn

from mfpo.models.threads import one_thread

Part = TypeVar("Part")


class Optimizer:
    """Muon on the matrices of the layers, AdamW on everything else, one learning-rate schedule for both.

    Muon needs about half of AdamW's steps here, which is what keeps the training within minutes. The parts of
    a batch are computed side by side, one thread each: on small tensors that is faster than two threads
    for every operation, and an update does not depend on the number of cores. It is a context
    manager, which holds the threads.

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

    def __enter__(self) -> Optimizer:
        """Start the threads."""
        self._stack = ExitStack()
        self._stack.enter_context(one_thread())
        pool = ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,))
        self._pool = self._stack.enter_context(pool)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the threads."""
        self._stack.close()

    def step(self, loss: Callable[[Part], Tensor], parts: Sequence[Part]) -> None:
        """One update by the sum of the parts' losses, gradients clipped to norm 1.

        Args:
            loss: Scalar loss of a part, its share of the batch's loss.
            parts: The parts of a batch.
        """

        def gradients(part: Part) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(loss(part), self.parameters, allow_unused=True)

        columns = zip(*self._pool.map(gradients, parts), strict=True)
        for parameter, found in zip(self.parameters, columns, strict=True):
            present = [gradient for gradient in found if gradient is not None]
            parameter.grad = torch.stack(present).sum(0) if present else None
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for one in self._optimizers:
            one.step()
        for schedule in self._schedules:
            schedule.step()
