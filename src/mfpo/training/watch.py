"""What is looked at in every step: whether the loss is a number, and whether somebody wants to stop."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy

from mfpo.errors import Stopped, UserError
from mfpo.training.checkpoints import can_go_on, last_whole_checkpoint

if TYPE_CHECKING:
    from types import FrameType

    from transformers import TrainerControl, TrainerState, TrainingArguments

SHOWN_ROWS = 8


class StepWatch(TrainerCallback):
    """Stops before a step would spoil the weights, and after one when a signal has come.

    Processes agree on both, so that none waits for another.
    """

    def __init__(self) -> None:
        self.losses: list[tuple[list[str], Tensor]] = []
        self.grad_norm: Any = None
        self.signal: int | None = None
        self.stop_at: int | None = None
        self._agreed = False

    def saw(self, ids: list[str], losses: Tensor) -> None:
        """Note the rows of a batch and their losses ``[B]``."""
        self.losses.append((ids, losses.detach()))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the losses of the step before the weights change.

        Raises:
            UserError: One of them, or the gradient, is NaN or infinite.
        """
        ids = [row for batch, _ in self.losses for row in batch]
        losses = torch.cat([values for _, values in self.losses]).float()
        norm = self.grad_norm.full_tensor() if hasattr(self.grad_norm, "full_tensor") else self.grad_norm
        norms = losses.new_tensor([0.0 if norm is None else float(norm)])
        finite = torch.cat([losses, norms]).isfinite().tolist()
        self.losses, self.grad_norm = [], None
        bad = [row for row, good in zip(ids, finite, strict=False) if not good]
        flags = torch.tensor([not all(finite), self.signal is not None], dtype=torch.int, device=args.device)
        if args.world_size > 1:
            torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
        broken, self._agreed = (bool(flag) for flag in flags.tolist())
        if broken:
            every = gather_object(bad), gather_object(ids)
            # DeepSpeed steps inside its backward pass, before anybody is asked.
            taken = bool(args.deepspeed or args.deepspeed_plugin)
            raise _not_finite(every[0], every[1], state.global_step + 1, str(args.output_dir), taken=taken)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop if a signal has come, with a checkpoint where checkpoints are wanted; or where it was set."""
        if state.global_step == self.stop_at:
            control.should_training_stop = control.should_save = True
        if self._agreed:
            control.should_training_stop = True
            control.should_save = args.save_strategy != SaveStrategy.NO

    @contextmanager
    def signals(self) -> Iterator[None]:
        """While the block runs, SIGTERM and Ctrl-C wait for the end of the step; a second one does not."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        names = (signal.SIGINT, signal.SIGTERM)
        earlier = {name: signal.getsignal(name) for name in names}

        def note(number: int, frame: FrameType | None) -> None:
            self.signal = number
            print(f"{signal.Signals(number).name}: stopping after this step", file=sys.stderr, flush=True)
            restore()

        def restore() -> None:
            for name, handler in earlier.items():
                signal.signal(name, handler)

        try:
            for name in names:
                signal.signal(name, note)
            yield
        finally:
            restore()

    def raise_if_stopped(self, args: TrainingArguments, step: int, steps: int) -> None:
        """End a training that was cut short.

        Raises:
            Stopped: A signal came before the last step.
        """
        if not self._agreed or step >= steps:
            return
        number = self.signal if self.signal is not None else signal.SIGTERM
        message = f"stopped by {signal.Signals(number).name} after step {step} of {steps}; "
        if args.save_strategy == SaveStrategy.NO:
            message += "nothing was saved, as --save_steps is 0"
        else:
            checkpoint = last_whole_checkpoint(str(args.output_dir))
            message += f"saved {checkpoint}"
            if checkpoint is not None and can_go_on(checkpoint):
                message += "; the same command with --resume_from_checkpoint last goes on"
        raise Stopped(message, 128 + number)


def _not_finite(bad: list[str], ids: list[str], step: int, output_dir: str, *, taken: bool) -> UserError:
    checkpoint = last_whole_checkpoint(output_dir)
    # A lower beta is another loss, with which no checkpoint is gone on from.
    lower, kept = "--learning_rate or --beta", ""
    if checkpoint is not None and can_go_on(checkpoint):
        lower = "--learning_rate"
        kept = f"; --resume_from_checkpoint {checkpoint} goes on from the last good weights"
    what, rows = ("loss", bad) if bad else ("gradient", ids)
    more = f" and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else ""
    shown = ", ".join(rows[:SHOWN_ROWS]) + more
    return UserError(
        f"the {what} is not a finite number at step {step}, rows {shown}; "
        + ("nothing was saved after it" if taken else "the step was not taken"),
        where=output_dir,
        fix=f"look at these rows (`mfpo browse`), lower {lower}, or train in float32{kept}",
    )
