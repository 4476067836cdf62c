"""Difficulty as the model sees it now: what is left after the first stage, ranked again (paper 3.3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mfpo.difficulty.chunks import discard_chunks
from mfpo.difficulty.config import Precision
from mfpo.difficulty.fingerprint import fingerprint
from mfpo.difficulty.scores import compute_scores
from mfpo.difficulty.semantic import SemanticSettings, semantic_entropies
from mfpo.difficulty.stages import split_rest
from mfpo.difficulty.store import FOLDER
from mfpo.errors import UserError
from mfpo.models.load import VLM
from mfpo.models.logprobs import Layout
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.encoding import EncodedRows, RowEncoder, Rows
from mfpo.records import PreferencePair
from mfpo.training.batching import CurriculumDataset, CurriculumPlan
from mfpo.training.checkpoints import SavedOrder, step_of
from mfpo.training.config import TrainConfig

if TYPE_CHECKING:
    from mfpo.training.trainer import PreferenceTrainer


@dataclass(frozen=True, slots=True)
class SomeRows:
    """Some rows of a dataset, read when they are asked for.

    Attributes:
        rows: The dataset.
        chosen: Indices of the rows, ascending.
        ids: Their ids.
    """

    rows: Rows
    chosen: tuple[int, ...]
    ids: list[str]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int, /) -> PreferencePair:
        return self.rows[self.chosen[index]]

    def __iter__(self) -> Iterator[PreferencePair]:
        return (self.rows[row] for row in self.chosen)

    def without_images(self, *, rejected: bool = True) -> Iterator[PreferencePair]:
        """The rows, without their pictures where the dataset can leave them out.

        Args:
            rejected: Whether stored rejected images are read.
        """
        light = getattr(self.rows, "without_images", None)
        if light is None:
            return iter(self)
        chosen = set(self.chosen)
        return (pair for row, pair in enumerate(light(rejected=rejected)) if row in chosen)


@dataclass(frozen=True, slots=True)
class Rescoring:
    """One ranking in the middle of a training, and the training around it.

    The training stops at the last whole step of the first stage and writes a checkpoint, as for any other
    stop. What is left is scored with the weights of that moment and cut into the stages that are left; the
    new order goes into the checkpoint, from which training goes on. After the second of three stages there is
    one stage left, whose rows are the same however they are ranked, so they are not scored again.

    Attributes:
        trainer: The trainer.
        vlm: The model in training with its processor.
        plan: The order that was planned.
        config: The settings.
        precision: What the model computes in.
        layout: How sequences are laid out.
        rows_per_step: Rows of an optimizer step, of all processes.
        semantic: How semantic entropies are made, if difficulty is that.
    """

    trainer: PreferenceTrainer
    vlm: VLM
    plan: CurriculumPlan
    config: TrainConfig
    precision: Precision
    layout: Layout
    rows_per_step: int
    semantic: SemanticSettings | None = None

    @property
    def boundary(self) -> int:
        """The step after which rows are ranked again; 0 for never."""
        if len(self.plan.stages) < 3:
            return 0
        first = sum(scheduled.stage == 1 for scheduled in self.plan.schedule())
        return first // self.rows_per_step

    def train(self, checkpoint: str | None) -> None:
        """Train to the end.

        Args:
            checkpoint: The checkpoint to go on from, None to begin.

        Raises:
            UserError: The checkpoint is of a training without this ranking.
            Stopped: A signal ended the training.
        """
        trainer, boundary = self.trainer, self.boundary
        step = step_of(checkpoint) if checkpoint else 0
        if boundary and trainer.order.schedule is None:
            if step > boundary:
                raise UserError(
                    f"rows were to be ranked again after step {boundary}, and were not",
                    where=f"--resume_from_checkpoint {checkpoint}",
                    fix="leave --rescore_between_stages out, as it was, or resume from an earlier step",
                )
            if step < boundary:
                trainer.watch.stop_at = boundary
                trainer.train(resume_from_checkpoint=checkpoint)
                trainer.watch.raise_if_stopped(trainer.args, trainer.state.global_step, self._steps)
                checkpoint = str(Path(self.config.output_dir) / f"checkpoint-{boundary}")
            elif checkpoint is not None:
                trainer._load_from_checkpoint(checkpoint)
            assert checkpoint is not None
            self._rank_again(Path(checkpoint))
            trainer.restore_extras(checkpoint)
        trainer.train(resume_from_checkpoint=checkpoint)

    @property
    def _steps(self) -> int:
        return int(self.trainer.state.max_steps)

    def _rank_again(self, checkpoint: Path) -> None:
        """Score the rows of the later stages and put the new order into the checkpoint."""
        first, *later = self.plan.stages
        dataset: CurriculumDataset = self.trainer.train_dataset
        left = tuple(sorted(row for stage in later for row in stage.rows))
        ids = dataset.rows.ids
        rows = SomeRows(dataset.rows.rows, left, [ids[row] for row in left])
        encoder = RowEncoder(self.vlm.processor, max_length=self.config.max_length, rejected_image=False)
        parts = self._parts(rows, encoder, checkpoint.name)
        entropies = self._entropies(rows, encoder, parts)
        stages = split_rest(self.config.stages, left, entropies, [stage.name for stage in later])
        schedule = replace(self.plan, stages=(first, *stages)).schedule()
        order = replace(self.trainer.order, schedule=[(ids[entry.row], entry.stage) for entry in schedule])
        if self.trainer.is_local_process_zero():
            order.save(checkpoint)
        discard_chunks(parts)
        assert SavedOrder.load(checkpoint) == order

    def _parts(self, rows: SomeRows, encoder: RowEncoder, step: str) -> Path:
        """Where a ranking that is interrupted leaves what is done; of these weights and settings alone."""
        digest = fingerprint(self.trainer.model, encoder, rows, self.precision, self.layout).digest
        semantic = self.semantic if self.config.difficulty == "semantic" else None
        kind = "" if semantic is None else f".semantic-{semantic.digest}"
        return Path(self.config.output_dir) / FOLDER / f"after-{step}.{digest}{kind}.parts"

    def _entropies(self, rows: SomeRows, encoder: RowEncoder, parts: Path) -> list[float]:
        """Entropy of each row under the model as it is now; what cannot be read counts as hardest."""
        model, config = self.trainer.model, self.config
        encoded = EncodedRows(rows, encoder, cache_bytes=0)
        if config.difficulty == "semantic":
            assert self.semantic is not None
            # A projector that is trained beside an adapter is float32, and the tower before it is not.
            half = self.precision == "bfloat16"
            with self.trainer.autocast() if half else nullcontext():
                found = semantic_entropies(
                    replace(self.vlm, model=model),
                    rows,
                    self.semantic,
                    batch_size=self.trainer.args.per_device_train_batch_size,
                    folder=parts,
                )
            known = dict(zip(found.ids, found.entropies.tolist(), strict=True))
        else:
            scores, _ = compute_scores(
                model,
                encoded,
                ImageEncoder(model, cache_bytes=0),
                ("chosen",),
                batch_size=self.trainer.args.per_device_train_batch_size,
                precision=self.precision,
                layout=self.layout,
                progress=not self.trainer.args.disable_tqdm,
                folder=parts,
            )
            known = dict(zip(scores.ids, scores.entropies[config.difficulty].tolist(), strict=True))
        return [known.get(identifier, np.inf) for identifier in encoded.ids]
