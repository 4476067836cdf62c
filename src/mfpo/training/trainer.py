"""The trainer: ``transformers.Trainer`` with a preference objective and the turns of the stages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler, SequentialSampler
from transformers import PreTrainedModel, Trainer, TrainerCallback

from mfpo.data.files import append_jsonl, write_jsonl
from mfpo.errors import Skip
from mfpo.models.logprobs import score_responses
from mfpo.models.vision import ImageEncoder
from mfpo.training.batching import PreferenceCollator, TrainingBatch, TurnDataset
from mfpo.training.objectives import Objective, ObjectiveOutput, SequenceLogps, Weights
from mfpo.training.reference import Reference

if TYPE_CHECKING:
    from transformers import ProcessorMixin, TrainerControl, TrainerState, TrainingArguments

METRICS_FILE = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class Loss:
    """An objective with its settings.

    Attributes:
        objective: The objective.
        weights: Weights of its terms.
        beta: Strength of the pull to the reference.
        eta: Margin of equation 7.
    """

    objective: Objective
    weights: Weights
    beta: float
    eta: float

    def __call__(self, policy: SequenceLogps, reference: SequenceLogps) -> ObjectiveOutput:
        """Loss, terms and rewards of B rows."""
        return self.objective.loss(policy, reference, beta=self.beta, eta=self.eta, weights=self.weights)

    @property
    def at_start(self) -> float:
        """Its value while policy and reference are the same."""
        return self.objective.at_start(self.weights, self.eta)


class PreferenceTrainer(Trainer):
    """Trains a model on batches of preference rows, turn by turn.

    Everything that is not the loss, the order of rows and the metrics is the parent's: optimizer, schedule,
    accumulation, mixed precision, distribution, checkpoints, loggers and the Hub.

    Args:
        model: The model to train, its ``requires_grad`` set.
        args: Training arguments; the turns are one epoch.
        turns: The turns.
        collator: Makes batches of them.
        loss: The objective with its settings.
        reference: Where reference log-probabilities come from.
        images: Encoder of the model's pictures.
        processor: Saved beside the model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        *,
        turns: TurnDataset,
        collator: PreferenceCollator,
        loss: Loss,
        reference: Reference,
        images: ImageEncoder,
        processor: ProcessorMixin,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            train_dataset=turns,
            data_collator=collator,
            processing_class=processor,
            callbacks=[MetricsFile()],
        )
        # The loss is a mean over rows: the parent is to divide it by the number of accumulated batches.
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = False
        self.loss, self.reference, self.images = loss, reference, images
        self.skips: list[Skip] = []
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def evaluate_batch(self, model: nn.Module, batch: TrainingBatch) -> tuple[ObjectiveOutput, SequenceLogps]:
        """Loss of a batch and the policy's log-probabilities, in the precision of training."""
        with self.autocast():
            policy = batch.split(score_responses(model, batch.responses, self.images).logps)
            reference = self.reference(batch)
        return self.loss(policy, reference), policy

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of mixed precision, which the parent enters in the model's forward pass only."""
        context: AbstractContextManager[Any] = self.accelerator.autocast()
        return context

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """Forward and backward over the batches of a step, whose gradients are those of all its rows."""
        batches = [inputs["batch"], *inputs.get("more", ())]
        total = sum(len(batch.ids) for batch in batches)
        losses = []
        for number, batch in enumerate(batches, start=1):
            last = number == len(batches)
            with nullcontext() if last else self.accelerator.no_sync(model):
                part = {"batch": batch, "share": len(batch.ids) / total}
                losses.append(super().training_step(model, part, num_items_in_batch))
        return torch.stack(losses).sum()

    def compute_loss(
        self, model: nn.Module, inputs: Mapping[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """Mean loss of the rows of a batch, times their share of the rows of the step."""
        batch: TrainingBatch = inputs["batch"]
        output, policy = self.evaluate_batch(model, batch)
        self._record(batch_metrics(output, policy) | {"stage": batch.stages})
        self._record({"padding": torch.tensor([batch.responses.padding], device=output.loss.device)})
        self.skips.extend(batch.skips)
        loss = output.loss.mean() * inputs.get("share", 1.0)
        return (loss, output) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        """The turns are in order already."""
        return SequentialSampler(self.train_dataset)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """As the parent does, but a whole model goes through ``from_pretrained``.

        Checkpoints of many vision-language models name their weights otherwise than the model in memory
        does; the parent reads the file as it is and passes over the names it does not find.
        """
        whole = isinstance(self.model, PreTrainedModel) and not self.is_fsdp_enabled
        if not whole:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved = type(self.model).from_pretrained(resume_from_checkpoint, dtype=self.model.dtype)
        self.model.load_state_dict(saved.state_dict())

    def _record(self, metrics: Mapping[str, Tensor]) -> None:
        for name, values in metrics.items():
            total = values.detach().float().sum()
            self._sums[name] = self._sums[name] + total if name in self._sums else total
            self._counts[name] = self._counts.get(name, 0) + len(values)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, with the means of all metrics over the rows of all processes since the last line."""
        if self._sums:
            names = list(self._sums)
            totals = torch.stack(
                [
                    torch.stack([self._sums[name], self._sums[name].new_tensor(self._counts[name])])
                    for name in names
                ]
            )
            totals = self.accelerator.reduce(totals, reduction="sum")
            logs |= {name: (total / count).item() for name, (total, count) in zip(names, totals, strict=True)}
            self._sums.clear()
            self._counts.clear()
        super().log(logs, *args, **kwargs)


def batch_metrics(output: ObjectiveOutput, policy: SequenceLogps) -> dict[str, Tensor]:
    """What is logged of B rows, ``[B]`` each: terms, rewards and log-probabilities.

    Args:
        output: Loss and rewards.
        policy: Log-probabilities under the model in training.
    """
    rewards = output.rewards
    metrics = {f"loss/{name}": term for name, term in output.terms.items()}
    metrics |= {f"rewards/{name}": reward for name, reward in rewards.items()}
    metrics["rewards/margins"] = rewards["chosen"] - rewards["rejected"]
    metrics["rewards/accuracies"] = (rewards["chosen"] > rewards["rejected"]).float()
    metrics |= {"logps/chosen": policy.chosen, "logps/rejected": policy.rejected}
    if policy.image_rejected is not None:
        metrics["rewards/image_margins"] = rewards["chosen"] - rewards["image_rejected"]
        metrics["rewards/image_accuracies"] = (rewards["chosen"] > rewards["image_rejected"]).float()
        metrics["logps/image_rejected"] = policy.image_rejected
    return metrics


class MetricsFile(TrainerCallback):
    """Writes every line that is logged to ``metrics.jsonl``."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the file with what was logged before the checkpoint that is resumed, if one is."""
        if state.is_world_process_zero:
            write_jsonl(_metrics_path(args), state.log_history)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Append the line."""
        if state.is_world_process_zero and state.log_history:
            append_jsonl(_metrics_path(args), [json.loads(json.dumps(state.log_history[-1]))])


def _metrics_path(args: TrainingArguments) -> Path:
    return Path(str(args.output_dir)) / METRICS_FILE
