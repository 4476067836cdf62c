"""The steps that every world has: reference pass, training, measurement.

Each goes through the function behind the verb of the same name, so what runs here is what a user runs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from mfpo.data.files import write_json
from mfpo.difficulty.config import SharedPrefix
from mfpo.difficulty.store import FOLDER
from mfpo.experiments.measures import Measuring
from mfpo.experiments.scene_steps import SceneLlava
from mfpo.experiments.step import DATA_CODE, GivenRows, Model, Place, Rows, Step, code
from mfpo.preferences.encoding import NoiseOverride
from mfpo.training.config import SKIPPED_FILE, TrainConfig

TRAINING_CODE = (*DATA_CODE, "difficulty", "training")
MEASURE_CODE = (*DATA_CODE, "evaluation", "experiments/measures.py", "experiments/scene_measures.py")
NOT_DECISIVE = frozenset(
    {"dataset", "model_name_or_path", "output_dir", "report_to", "plot_every", "save_steps", "dry_run"}
    | {"push_to_hub", "resume_from_checkpoint", "recipe"}
)
"""Settings of a training that do not change its result, or that stand for a step of their own."""


def scores_in(dataset: Path) -> Path:
    """Where `mfpo rank` leaves the scores of a dataset."""
    return dataset.resolve() / FOLDER


@dataclass(frozen=True)
class Ranking(Step):
    """Reference log-probabilities and entropies of rows; they are kept in the dataset's folder.

    Attributes:
        rows: The rows.
        model: The reference.
        noise: In place of the rows' own.
        semantic: Also the semantic entropies.
        semantic_samples: Answers sampled for them, of each row.
        batch_size: Rows scored at once.
        max_length: Tokens of image, prompt and response.
        attn_implementation: Attention kernel; the model's choice when None.
        shared_prefix: Whether image and prompt are encoded once for all answers.
        load_in_4bit: Whether the language model is held in 4 bits.
        use_lora: Whether the trainings that share the scores train an adapter, beside bfloat16 weights.
        bf16: What they say of bfloat16; the device's choice when None.
    """

    kind: ClassVar[str] = "rankings"
    rows: Rows
    model: Model
    noise: NoiseOverride = field(default_factory=NoiseOverride)
    semantic: bool = False
    semantic_samples: int = 10
    batch_size: int = 32
    max_length: int | None = 2048
    attn_implementation: str | None = None
    shared_prefix: SharedPrefix = "auto"
    load_in_4bit: bool = False
    use_lora: bool = False
    bf16: bool | None = None

    @property
    def needs(self) -> tuple[Step, ...]:
        """Rows and model; sampling answers comes after scoring the given ones."""
        plain = (replace(self, semantic=False),) if self.semantic else ()
        return self.rows, self.model, *plain

    @property
    def cost(self) -> float:
        """One pass; many sampled answers."""
        return 200.0 if self.semantic else 15.0

    def depends(self) -> dict[str, Any]:
        """Noise and code."""
        settings: dict[str, Any] = {
            "noise": asdict(self.noise),
            "semantic": self.semantic_samples if self.semantic else None,
            "batch_size": self.batch_size,
            "max_length": self.max_length,
            "attn_implementation": self.attn_implementation,
            "shared_prefix": self.shared_prefix,
            "load_in_4bit": self.load_in_4bit,
            "use_lora": self.use_lora,
            "bf16": self.bf16,
        }
        return settings | code((*DATA_CODE, "difficulty"))

    def done(self, folder: Path) -> bool:
        """The scores lie in the dataset's folder, which may have been moved or made anew; a note is here."""
        note = folder / "done.json"
        if not note.is_file():
            return False
        scores = Path(json.loads(note.read_text(encoding="utf-8")).get("scores", ""))
        moved = isinstance(self.rows, GivenRows) and scores.parent != scores_in(Path(self.rows.folder))
        return scores.is_file() and not moved

    def make(self, folder: Path, place: Place) -> None:
        """As `mfpo rank` does, in the precision of the trainings."""
        from mfpo.difficulty.config import RankConfig
        from mfpo.difficulty.rank import run as rank
        from mfpo.models.load import process_device
        from mfpo.training.setup import planned_precision

        training = TrainConfig(use_lora=self.use_lora, bf16=self.bf16, load_in_4bit=self.load_in_4bit)
        dataset = self.rows.dataset(place(self.rows))
        result = rank(
            RankConfig(
                dataset=str(dataset),
                model_name_or_path=str(place(self.model)),
                noise_scope=self.noise.scope,
                noise_step=self.noise.step,
                noise_step_max=self.noise.step_max,
                noise_schedule=self.noise.schedule,
                noise_feather=self.noise.feather,
                per_device_batch_size=self.batch_size,
                max_length=self.max_length,
                attn_implementation=self.attn_implementation,
                shared_prefix=self.shared_prefix,
                load_in_4bit=self.load_in_4bit,
                precision=planned_precision(training, process_device()),
                semantic=self.semantic,
                semantic_samples=self.semantic_samples,
            )
        )
        assert result is not None, "it was no dry run"
        ending = ".semantic.parquet" if self.semantic else ".parquet"
        scores = scores_in(dataset) / f"{result.fingerprint}{ending}"
        note = {"rows": self.rows.digest, "model": self.model.digest, "scores": str(scores)}
        write_json(folder / "done.json", note)


@dataclass(frozen=True)
class Training(Model):
    """A training of `mfpo train`.

    Attributes:
        rows: What it is trained on.
        model: What it starts from.
        config: Its settings; dataset, model and folder are put in when it runs.
        ranking: Reference pass whose scores it finds; None if it makes its own or needs none.
        keep_stages: Whether the models at the ends of the stages are kept, in ``stage-1``, ``stage-2``, ...
    """

    kind: ClassVar[str] = "trainings"
    rows: Rows
    model: Model
    config: TrainConfig
    ranking: Ranking | None = None
    keep_stages: bool = False

    @property
    def needs(self) -> tuple[Step, ...]:
        """Rows, model and reference pass."""
        return self.rows, self.model, *(() if self.ranking is None else (self.ranking,))

    @property
    def cost(self) -> float:
        """Two sequences a row, or three."""
        text_only = self.config.objective.startswith(("dpo", "ha-dpo")) or self.config.image_weight == 0
        return 35.0 if text_only else 55.0

    @property
    def name(self) -> str:
        """With what is trained."""
        return f"training {self.config.objective} ({self.digest})"

    def depends(self) -> dict[str, Any]:
        """All settings that change the result, and code."""
        settings = {k: v for k, v in asdict(self.config).items() if k not in NOT_DECISIVE}
        return {"config": settings} | code(TRAINING_CODE)

    def done(self, folder: Path) -> bool:
        """The list of skipped rows is written after the weights."""
        stages = not self.keep_stages or (stage_folder(folder, NUM_STAGES - 1) / STAGE_FILE).is_file()
        return stages and (folder / SKIPPED_FILE).is_file()

    def make(self, folder: Path, place: Place) -> None:
        """Train."""
        from mfpo.experiments.stage_models import StageModels
        from mfpo.training.train import run as train

        config = replace(
            self.config,
            dataset=str(self.rows.dataset(place(self.rows))),
            model_name_or_path=str(place(self.model)),
            output_dir=str(folder),
            resume_from_checkpoint="auto" if self.config.save_steps > 0 else None,
            trainer={"disable_tqdm": True, **self.config.trainer},
        )
        (folder / SKIPPED_FILE).unlink(missing_ok=True)
        train(config, callbacks=[StageModels(folder)] if self.keep_stages else [])


@dataclass(frozen=True)
class Measurement(Step):
    """What a model does: answers that are scored, or a probe; the result is ``scores/<measure>.json``.

    Attributes:
        model: The model.
        measuring: What is measured, and how.
        stage: Measure the model at the end of this stage of its training; the finished one when None.
        rows: Rows that a probe needs.
        world: Scene model whose world the scenes are of; the default world when None.
    """

    kind: ClassVar[str] = "measurements"
    model: Model
    measuring: Measuring
    stage: int | None = None
    rows: Rows | None = None
    world: SceneLlava | None = None

    @property
    def needs(self) -> tuple[Step, ...]:
        """Model, rows, world."""
        return tuple(step for step in (self.model, self.rows, self.world) if step is not None)

    @property
    def cost(self) -> float:
        """By what is measured."""
        return self.measuring.cost

    @property
    def name(self) -> str:
        """With what is measured."""
        return f"{self.measuring.measure} of {self.model.name}"

    def depends(self) -> dict[str, Any]:
        """How it is measured, and code."""
        return {"measuring": self.measuring.decisive(), "stage": self.stage} | code(MEASURE_CODE)

    def done(self, folder: Path) -> bool:
        """Score files are written as a whole; tools that came since, such as NLTK's data, score again."""
        if not self.scores(folder).is_file():
            return False
        tools, used = self.measuring.tools(), folder / TOOLS_FILE
        return not tools or (used.is_file() and json.loads(used.read_text(encoding="utf-8")) == tools)

    def scores(self, folder: Path) -> Path:
        """The score file."""
        return folder / "scores" / f"{self.measuring.measure}.json"

    def make(self, folder: Path, place: Place) -> None:
        """Measure; begun answers of small models are made anew, so that the bits are those of one go."""
        from mfpo.experiments.measures import measure

        model = place(self.model)
        if self.stage is not None and self.stage < NUM_STAGES:
            model = stage_folder(model, self.stage)
        rows = None if self.rows is None else self.rows.dataset(place(self.rows))
        world = None if self.world is None else place(self.world)
        measure(self.measuring, str(model), folder, rows=rows, world=world)
        if tools := self.measuring.tools():
            write_json(folder / TOOLS_FILE, tools)


TOOLS_FILE = "tools.json"
"""What answers were scored with."""
NUM_STAGES = 3
"""Easy, medium, hard."""
STAGE_FILE = "stage.json"
"""Written into the folder of a stage's model when the model is whole, be it a checkpoint or an adapter."""


def stage_folder(training: Path, stage: int) -> Path:
    """Where the model at the end of a stage is, the last stage excepted."""
    return training / f"stage-{stage}"
