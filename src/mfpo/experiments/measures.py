"""What a model is measured by: one function a measure, all of which end in a score file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mfpo.data.files import read_jsonl
from mfpo.data.fingerprint import library_versions
from mfpo.errors import UserError
from mfpo.evaluation.benchmarks import BENCHMARKS, benchmark_class
from mfpo.evaluation.config import Decoding, EvalConfig, JudgeSettings
from mfpo.evaluation.results import ScoreResult, score_result
from mfpo.evaluation.statistics import Metric
from mfpo.records import Scope

if TYPE_CHECKING:
    from mfpo.models.load import VLM

_COSTS = {"scenes": 40, "questions": 20, "matched": 35, "grounding": 20, "distortion": 10, "attention": 5}
_NOT_DECISIVE = ("batch_size", "judge", "data")


@dataclass(frozen=True)
class GivenData:
    """A benchmark's data on disk.

    Attributes:
        folder: Where they are.
        fingerprint: What tells them from others.
    """

    folder: str
    fingerprint: str


@dataclass(frozen=True)
class Measuring:
    """What is measured, and how.

    Attributes:
        measure: Its name.
        num_items: Scenes, drawings or rows; all there are when None.
        split: Scenes that are used.
        decoding: How answers are decoded.
        decoding_options: Options of the decoding.
        samples: Descriptions of a scene, for ``matched``.
        noise_scopes: Distortions, for ``distortion`` and ``naming``.
        noise_steps: Their diffusion steps.
        batch_size: Sequences run at once.
        data: The benchmark's data, for benchmarks of the outside world.
        judge: Who judges, for benchmarks that need a judge.
        variant: Part of the benchmark that is asked; its own choice when None.
        resume: Go on with answers that are there.
    """

    measure: str
    num_items: int | None = None
    split: str = "test"
    decoding: Decoding = "greedy"
    decoding_options: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 0
    noise_scopes: tuple[Scope, ...] = ()
    noise_steps: tuple[int, ...] = ()
    batch_size: int = 128
    data: GivenData | None = None
    judge: JudgeSettings | None = None
    variant: str | None = None
    resume: bool = False

    @property
    def cost(self) -> float:
        """About how many seconds it takes on one core at full size."""
        slower = {"greedy": 1, "vcd": 3, "opera": 30}[self.decoding]
        return _COSTS.get(self.measure, 5.0) * slower

    def decisive(self) -> dict[str, Any]:
        """What changes the result."""
        settings = {name: value for name, value in asdict(self).items() if name not in _NOT_DECISIVE}
        if self.judge is not None:
            names = ("judge_model", "judge_repeats", "judge_temperature", "base_url")
            settings["judge"] = {name: getattr(self.judge, name) for name in names}
        if self.data is not None:
            settings["data"] = self.data.fingerprint
        return settings

    def tools(self) -> dict[str, str]:
        """What makes its words of an answer; with other tools the same answers are scored again."""
        return _scoring_tools() if self.measure in ("amber", "chair", "objhal") else {}


@cache
def _scoring_tools() -> dict[str, str]:
    from mfpo.evaluation.mentions.words import missing_nltk_data

    missing = missing_nltk_data()
    return {
        **library_versions(("nltk", "spacy", "en-core-web-lg", "en-core-web-trf")),
        "missing": "" if missing is None else missing.what,
    }


@dataclass(frozen=True)
class Subject:
    """What is measured, opened when it is needed.

    Attributes:
        path: The checkpoint's folder or name.
        folder: Where results go.
        rows: Preference rows of a probe.
        world: Folder of the scene model whose world is used.
    """

    path: str
    folder: Path
    rows: Path | None = None
    world: Path | None = None

    def load(self, attn_implementation: str | None = None) -> VLM:
        """The model."""
        from mfpo.models.load import load_vlm

        return load_vlm(self.path, attn_implementation=attn_implementation)

    def pairs(self, count: int | None) -> Any:
        """The first rows of the dataset."""
        from mfpo.data.folder import open_dataset

        assert self.rows is not None, "the plan gives rows to every probe that takes them"
        pairs = open_dataset(str(self.rows))
        return pairs if count is None else list(islice(pairs, count))


def measure(
    measuring: Measuring, model: str, folder: Path, *, rows: Path | None = None, world: Path | None = None
) -> None:
    """Measure a model and write ``scores/<measure>.json`` into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subject = Subject(model, folder, rows, world)
    result = MEASURES.get(measuring.measure, _benchmark)(measuring, subject)
    if result is not None:
        result.save(folder / "scores" / f"{measuring.measure}.json")


def _benchmark(measuring: Measuring, subject: Subject) -> ScoreResult | None:
    """Answers to a benchmark's questions, scored; the evaluation writes the score file itself."""
    from mfpo.evaluation.score import evaluate

    scenes = measuring.measure == "scenes"
    data_dir = None if measuring.data is None else measuring.data.folder
    if scenes and subject.world is not None:
        data_dir = str(subject.world)
    judge = {} if measuring.judge is None else vars(measuring.judge)
    evaluate(
        EvalConfig(
            benchmark=measuring.measure,
            model_name_or_path=subject.path,
            output_dir=str(subject.folder),
            batch_size=measuring.batch_size,
            decoding=measuring.decoding,
            decoding_options=dict(measuring.decoding_options),
            data_dir=data_dir,
            variant=measuring.variant,
            split=measuring.split,
            num_samples=measuring.num_items,
            overwrite=not measuring.resume,
            **judge,
        )
    )
    return None


def _grounding(measuring: Measuring, subject: Subject) -> ScoreResult:
    from mfpo.evaluation.grounding import grounding
    from mfpo.experiments.scene_measures import world_of
    from mfpo.scenes.grounding import grounding_items

    count = measuring.num_items or 1000
    items = grounding_items(count, measuring.split, world=world_of(subject.world))
    result = grounding(subject.load(), items, batch_size=measuring.batch_size, total=count, progress=False)
    result.settings |= {"split": measuring.split, "seed": 0}
    return result


def _distortion(measuring: Measuring, subject: Subject) -> ScoreResult:
    from mfpo.evaluation.distortion import distortion, distortions

    conditions = distortions(measuring.noise_scopes, measuring.noise_steps)
    pairs = subject.pairs(measuring.num_items)
    return distortion(subject.load(), pairs, conditions, batch_size=measuring.batch_size, progress=False)


def _attention(measuring: Measuring, subject: Subject) -> ScoreResult:
    from mfpo.evaluation.attention import attention

    return attention(subject.load("eager"), subject.pairs(measuring.num_items), progress=False)


def _rewards(measuring: Measuring, subject: Subject) -> ScoreResult:
    """Rewards and losses over the last quarter of a training's lines."""
    from mfpo.training.metrics import METRICS_FILE

    path = Path(subject.path) / METRICS_FILE
    lines = [line for line in read_jsonl(path) if "loss" in line]
    if not lines:
        raise UserError("the training logged nothing", where=str(path))
    last = lines[-max(1, len(lines) // 4) :]
    records = [
        {"id": f"line-{number}", "lines": 1}
        | {short: line[key] for short, key in REWARDS.items() if key in line}
        for number, line in enumerate(last)
    ]
    found = [short for short in REWARDS if short in records[0]]
    return score_result("rewards", records, {name: REWARD_METRICS[name] for name in found}, {})


def _scene_measure(name: str) -> Callable[[Measuring, Subject], ScoreResult]:
    def run(measuring: Measuring, subject: Subject) -> ScoreResult:
        from mfpo.experiments import scene_measures

        found: ScoreResult = getattr(scene_measures, name)(measuring, subject)
        return found

    return run


Run: TypeAlias = Callable[[Measuring, Subject], ScoreResult | None]

MEASURES: dict[str, Run] = {
    "scenes": _benchmark,
    "questions": _scene_measure("questions"),
    "matched": _scene_measure("matched"),
    "naming": _scene_measure("naming"),
    "grounding": _grounding,
    "distortion": _distortion,
    "attention": _attention,
    "rewards": _rewards,
}
"""The measures that are no benchmark of the outside world."""


def known_metrics(measuring: Measuring) -> Collection[str]:
    """Names of the metrics that a measure will have."""
    from mfpo.evaluation.attention import METRICS
    from mfpo.evaluation.distortion import distortion_metrics, distortions
    from mfpo.evaluation.grounding import GROUNDING_METRICS
    from mfpo.experiments.scene_measures import QUESTION_METRICS, matched_metrics

    measure = measuring.measure
    if measure in BENCHMARKS:
        return benchmark_class(measure).metrics
    if measure == "matched":
        return matched_metrics(measuring.samples)
    if measure in ("distortion", "naming"):
        return distortion_metrics(distortions(measuring.noise_scopes, measuring.noise_steps))
    known: Mapping[str, Collection[str]] = {
        "questions": QUESTION_METRICS,
        "grounding": GROUNDING_METRICS,
        "attention": METRICS,
        "rewards": REWARD_METRICS,
    }
    return known[measure]


REWARDS = {
    "text_margin": "rewards/margins",
    "image_margin": "rewards/image_margins",
    "chosen": "rewards/chosen",
    "rejected": "rewards/rejected",
    "image_rejected": "rewards/image_rejected",
    "loss": "loss",
}
"""Names of what a training logs."""

REWARD_METRICS = {
    name: Metric(name, "lines", scale=1, better=better, text=text)  # type: ignore[arg-type]
    for name, better, text in (
        ("text_margin", "higher", "reward of the chosen answer minus that of the rejected one"),
        ("image_margin", "higher", "reward with the picture minus that with the rejected image"),
        ("chosen", "higher", "reward of the chosen answer"),
        ("rejected", "", "reward of the rejected answer"),
        ("image_rejected", "", "reward of the chosen answer with the rejected image"),
        ("loss", "lower", "loss, all terms"),
    )
}
