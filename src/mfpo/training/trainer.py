"""The trainer: ``transformers.Trainer`` with a preference objective and the order of the stages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler, SequentialSampler
from transformers import PreTrainedModel, PrinterCallback, ProgressCallback, TrainerCallback

from mfpo.data.files import write_json
from mfpo.errors import Skip
from mfpo.models.adapters import quiet_peft
from mfpo.models.logprobs import score_responses
from mfpo.models.vision import ImageEncoder
from mfpo.training.arguments import is_all_warmup
from mfpo.training.balance import ModalityBalance
from mfpo.training.batching import CurriculumDataset, PreferenceCollator, ScheduledRow, TrainingBatch
from mfpo.training.checkpoints import AtomicCheckpoints, SavedOrder, order_digest
from mfpo.training.metrics import MetricsFile, ReadableProgress, batch_metrics, modality_balance
from mfpo.training.objectives import BySequence, Loss, ObjectiveOutput, SequenceLogps
from mfpo.training.reference import Reference
from mfpo.training.watch import StepWatch

if TYPE_CHECKING:
    from transformers import ProcessorMixin, TrainingArguments


class ModelCard(TrainerCallback):
    """A callback that also writes the README of what was trained."""

    def write_card(self, folder: Path) -> None:
        """Write it into the run's folder, which holds settings and metrics."""
        raise NotImplementedError


def change_rates(scheduler: LambdaLR, rates: Sequence[float]) -> None:
    """Give a schedule that is under way other base rates; what its steps did to them stays.

    Args:
        scheduler: The schedule, at any step.
        rates: Base rate of each group of parameters.
    """
    shares = [share(scheduler.last_epoch) for share in scheduler.lr_lambdas]
    now = [rate * share for rate, share in zip(rates, shares, strict=True)]
    scheduler.base_lrs, scheduler._last_lr = list(rates), list(now)
    for group, base, rate in zip(scheduler.optimizer.param_groups, rates, now, strict=True):
        group["initial_lr"], group["lr"] = base, rate


class PreferenceTrainer(AtomicCheckpoints):
    """Trains a model on batches of preference rows, in the order of its dataset.

    Everything that is not the loss, the order of rows and the metrics is the parent's: optimizer, schedule,
    accumulation, mixed precision, distribution, checkpoints, loggers and the Hub.

    Args:
        model: The model to train, its ``requires_grad`` set.
        args: Training arguments; the dataset is one epoch.
        dataset: The rows in the order of training, all passes over them.
        collator: Makes batches of them.
        loss: The objective with its settings.
        reference: Where reference log-probabilities come from.
        images: Encoder of the model's pictures.
        processor: Saved beside the model.
        balance: Weighs text and image term; None leaves the weights as they are.
        recorded: What else a checkpoint records, and must have been trained with to be resumed; JSON values.
        callbacks: What else is told of steps and metrics.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        *,
        dataset: CurriculumDataset,
        collator: PreferenceCollator,
        loss: Loss,
        reference: Reference,
        images: ImageEncoder,
        processor: ProcessorMixin,
        balance: ModalityBalance | None = None,
        recorded: Mapping[str, Any] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.watch = StepWatch()
        super().__init__(
            model=model,
            args=args,
            train_dataset=dataset,
            data_collator=collator,
            processing_class=processor,
            callbacks=[MetricsFile(), self.watch, *([balance] if balance else []), *callbacks],
        )
        self._make_progress_readable()
        # The loss is a mean over rows: the parent is to divide it by the number of accumulated batches.
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = False
        self.loss, self.reference, self.images = loss, reference, images
        self.skips: list[Skip] = []
        settings = {"noise": asdict(dataset.rows.encoder.noise), **loss.describe()}
        settings["balance_modalities"] = balance is not None
        settings["per_device_train_batch_size"] = args.per_device_train_batch_size
        settings["gradient_accumulation_steps"] = args.gradient_accumulation_steps
        settings["processes"] = args.world_size
        settings |= recorded or {}
        self.order = SavedOrder(order_digest(dataset.schedule, dataset.rows.ids), settings=settings)
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._margins: list[tuple[Tensor, Tensor]] = []

    @property
    def balance(self) -> ModalityBalance | None:
        """What weighs text and image term; the parent may put a restored one in its place."""
        found = (one for one in self.callback_handler.callbacks if isinstance(one, ModalityBalance))
        return next(found, None)

    def evaluate_batch(self, model: nn.Module, batch: TrainingBatch) -> tuple[ObjectiveOutput, SequenceLogps]:
        """Loss of a batch and the policy's log-probabilities, in the precision of training."""
        whole = self.loss.objective.policy == "distributions"
        with self.autocast():
            scores = score_responses(model, batch.responses, self.images, logits=whole)
            policy, answers = batch.split(scores), batch.answers(scores.mask)
            reference = self.reference(batch)
        balance = self.balance
        weights = None if balance is None else balance.weights(self.loss.weights)
        return self.loss(policy, reference, answers, weights=weights), policy

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
        self._margins = []
        for number, batch in enumerate(batches, start=1):
            last = number == len(batches)
            with nullcontext() if last else self.accelerator.no_sync(model):
                part = {"batch": batch, "share": len(batch.ids) / total}
                losses.append(super().training_step(model, part, num_items_in_batch))
        if self._margins:
            self._update_balance()
        return torch.stack(losses).sum()

    def compute_loss(
        self, model: nn.Module, inputs: Mapping[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """Mean loss of the rows of a batch, times their share of the rows of the step."""
        batch: TrainingBatch = inputs["batch"]
        output, policy = self.evaluate_batch(model, batch)
        metrics = batch_metrics(output, policy) | {"stage": batch.stages, "loss": output.loss}
        if self.balance is not None and output.rewards is not None:
            metrics |= self._note_margins(output.rewards)
        self._record(metrics)
        self._record({"padding": output.loss.new_full((1,), batch.responses.padding, dtype=torch.float32)})
        self.watch.saw(batch.ids, output.loss)
        self.skips.extend(batch.skips)
        loss = output.loss.mean() * inputs.get("share", 1.0)
        return (loss, output) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        """The rows are in order already."""
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

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        with quiet_peft():
            super()._save(output_dir, state_dict)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As the parent does, but with the learning rate that is set now, where it is another."""
        scheduler = self.lr_scheduler
        rates = [float(rate) for rate in scheduler.base_lrs] if isinstance(scheduler, LambdaLR) else []
        super()._load_optimizer_and_scheduler(checkpoint)
        if isinstance(scheduler, LambdaLR) and scheduler.base_lrs != rates:
            if self.is_world_process_zero():
                print(f"learning rate was {scheduler.base_lrs[0]:g}, is {rates[0]:g} from here on")
            change_rates(scheduler, rates)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """As the parent does, without a warm-up that would be all of the training."""
        if is_all_warmup(self.args, num_training_steps):
            self.args.warmup_steps = 0
        return super().create_scheduler(num_training_steps, optimizer)

    def save_extras(self, folder: Path) -> None:
        """The order of rows, and the sums of the metrics that are not logged yet."""
        sums = {name: total.item() for name, total in self._sums.items()}
        write_json(folder / self._sums_file, {"sums": sums, "counts": self._counts})
        if self.is_local_process_zero():
            self.order.save(folder)

    def restore_extras(self, checkpoint: str | Path) -> None:
        """Go on with the order of rows and the sums of a checkpoint.

        Raises:
            UserError: The checkpoint belongs to other rows, noise, loss or batches.
        """
        order = SavedOrder.load(checkpoint)
        if order is not None:
            order.check(self.order, checkpoint)
            self.set_order(order)
        path = Path(checkpoint) / self._sums_file
        saved = json.loads(path.read_text()) if path.is_file() else {"sums": {}, "counts": {}}
        self._sums = {n: torch.tensor(total, device=self.args.device) for n, total in saved["sums"].items()}
        self._counts = saved["counts"]

    def set_order(self, order: SavedOrder) -> None:
        """Train in that order from now on."""
        self.order = order
        if order.schedule is not None:
            dataset: CurriculumDataset = self.train_dataset
            index = {identifier: row for row, identifier in enumerate(dataset.rows.ids)}
            dataset.schedule = [
                ScheduledRow(index[identifier], stage) for identifier, stage in order.schedule
            ]

    @property
    def _sums_file(self) -> str:
        return f"metric_sums_{self.args.process_index}.json"

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """As the parent does; a scaler, which halves its scale at an infinite gradient, is left to do so."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.watch.grad_norm = norm if self.accelerator.scaler is None else None
        return norm

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
            logs |= modality_balance(logs)
            self._sums.clear()
            self._counts.clear()
        super().log(logs, *args, **kwargs)

    def write_card(self) -> bool:
        """Have the README written by the callback that can, in place of PEFT's; False if there is none."""
        cards = [one for one in self.callback_handler.callbacks if isinstance(one, ModelCard)]
        if self.args.should_save:
            for card in cards:
                card.write_card(Path(str(self.args.output_dir)))
        return bool(cards)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """What the parent calls before an upload: our README, or the parent's where nothing writes one."""
        if not self.write_card():
            super().create_model_card(*args, **kwargs)

    def _note_margins(self, rewards: BySequence) -> dict[str, Tensor]:
        """Keep the margins of a batch for the balance; the weights that the batch was trained with."""
        balance = self.balance
        assert balance is not None and rewards.rejected is not None and rewards.image_rejected is not None
        text, image = balance.factors()
        chosen = rewards.chosen.detach()
        self._margins.append((chosen - rewards.rejected.detach(), chosen - rewards.image_rejected.detach()))
        return {
            "balance/text_weight": torch.full_like(rewards.chosen, self.loss.weights.text * text),
            "balance/image_weight": torch.full_like(rewards.chosen, self.loss.weights.image * image),
        }

    def _update_balance(self) -> None:
        """Let the balance take in the margins of all parts of a batch.

        Processes may have cut their batches into different numbers of parts, so they exchange one mean each.
        """
        balance = self.balance
        assert balance is not None
        margins = torch.stack([torch.cat(parts).mean() for parts in zip(*self._margins, strict=True)])
        self._margins = []
        balance.update(*self.accelerator.reduce(margins.float(), reduction="mean").tolist())

    def _make_progress_readable(self) -> None:
        """Metrics as a line for people, in place of the parent's dictionaries."""
        self.remove_callback(PrinterCallback)
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(ReadableProgress())
