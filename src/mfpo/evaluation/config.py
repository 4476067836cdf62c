"""Settings of ``mfpo generate``, ``score``, ``eval``, ``compare`` and ``probe``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from mfpo.records import Schedule, Scope

Engine: TypeAlias = Literal["local", "vllm", "openai"]
Decoding: TypeAlias = Literal["greedy", "vcd", "opera"]


@dataclass(slots=True, kw_only=True)
class ModelSettings:
    """How a model is loaded and run."""

    model_name_or_path: str
    """Checkpoint folder, adapter folder or Hub name."""

    batch_size: int = 32
    """Sequences that are run at once."""

    dtype: str = "auto"
    """Precision of the weights: `auto` (bfloat16 on a GPU that has it), `float32`, `bfloat16` or
    `float16`."""

    device: str | None = None
    """Device, for example `cuda:0`; the best one there is if not given."""

    attn_implementation: str | None = None
    """Attention kernel: `sdpa`, `eager` or `flash_attention_2`; the model's choice if not given."""

    revision: str | None = None
    """Branch, tag or commit on the Hub."""

    trust_remote_code: bool = False
    """Run code that comes with the checkpoint."""


# Without slots, so that a configuration can inherit from this and from another one.
@dataclass(kw_only=True)
class ServerSettings:
    """Where an OpenAI-compatible server is, and how it is used."""

    base_url: str | None = None
    """Address of an OpenAI-compatible server, such as `http://localhost:8000/v1`; OpenAI's if not given."""

    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; the key itself is never written anywhere."""

    concurrency: int = 8
    """Requests under way at once."""


@dataclass(kw_only=True)
class QuestionSettings:
    """Which questions are meant."""

    benchmark: str
    """Benchmark: `amber`, `chair`, `llava-bench`, `mmhal`, `objhal`, `pope` or `scenes`."""

    data_dir: str | None = None
    """Folder with the benchmark's data; `scenes` needs none, or a scene model's folder for its world."""

    split: str = "test"
    """Part of the benchmark: `validation` or `test` (scenes), `random`, `popular` or `adversarial` (pope; all
    three if not given)."""

    variant: str | None = None
    """Version of a benchmark that has several: `wordnet`, `pattern` or `objhal` (chair), `coco` or `wild`
    (llava-bench), `aoidragon` or `llava15` (pope), `all`, `generative` or `discriminative` (amber); the first
    of these if not given."""

    num_samples: int | None = None
    """Use the first N images only; all of them if not given."""


@dataclass(kw_only=True)
class JudgeSettings(ServerSettings):
    """Who judges answers, for benchmarks that need a judge."""

    judge_model: str | None = None
    """Model that judges the answers, by its name at the server; replies are kept and never paid for twice."""

    judge_repeats: int = 1
    """Judge every answer so many times; scores are means, and their spread is given."""

    judge_temperature: float | None = None
    """Temperature of the judge, in place of the official script's."""

    judge_price: str | None = None
    """Price of the judge per million tokens, such as `input=2.5,output=10`, to count the cost."""


@dataclass(kw_only=True)
class ScoreSettings(JudgeSettings):
    """How answers become numbers."""

    mode: Literal["official", "strict"] = "official"
    """`official` scores as the benchmark's own script does, quirks included; `strict` without them. The other
    one's metrics stand beside."""

    similarity: str | None = None
    """Synonyms for `amber`: `exact`, a table (.json), word vectors (.txt) or a spaCy pipeline. If not given,
    the official `en_core_web_lg` where it is installed, else `exact`."""


@dataclass(slots=True, kw_only=True)
class AnswerSettings(QuestionSettings, ServerSettings, ModelSettings):
    """What is asked, and how it is answered."""

    engine: Engine = "local"
    """What runs the model: `local` (transformers), `vllm`, or `openai` (a server, see --base_url)."""

    decoding: Decoding = "greedy"
    """How tokens are chosen: `greedy` (sampled if --temperature is above 0), `vcd` or `opera`."""

    decoding_options: dict[str, Any] = field(default_factory=dict)
    """Options of `vcd` (alpha, beta, noise_step, noise_schedule) or `opera` (num_beams, scale_factor,
    threshold, num_attn_candidates, penalty_weights)."""

    max_new_tokens: int | None = None
    """Tokens after which an answer is cut; the benchmark's own limit if not given."""

    temperature: float = 0.0
    """0 for greedy answers, above 0 for sampled ones."""

    top_p: float = 1.0
    """When sampling, keep to the most likely tokens that hold this share of the probability."""

    seed: int = 0
    """Seed of the samples."""

    overwrite: bool = False
    """Drop the answers that are already there; otherwise a run that was cut off goes on where it stopped."""

    dry_run: bool = False
    """Say what would be done, and stop."""


@dataclass(slots=True, kw_only=True)
class GenerateConfig(AnswerSettings):
    """Settings of ``mfpo generate``."""

    output_file: str
    """Answer file to write or to continue (JSON Lines, one answer a line)."""


@dataclass(slots=True, kw_only=True)
class ScoreConfig(QuestionSettings, ScoreSettings):
    """Settings of ``mfpo score``."""

    predictions: str | None = None
    """Answer file: ours, or of the benchmark's official script."""

    build_table: str | None = None
    """Write the synonyms of --similarity as a table (.json) for `amber`; needs no answers."""

    export_file: str | None = None
    """Write the answers for other toolkits too: a .jsonl as lmms-eval logs them; .tsv, .csv or .json as
    VLMEvalKit does."""

    judgements: str | None = None
    """Saved replies of a judge, in the format of the benchmark's official script."""

    output_file: str | None = None
    """Score file to write (JSON). If not given, `scores/X.json` for `answers/X.jsonl`, else `X.scores.json`
    beside."""


@dataclass(slots=True, kw_only=True)
class EvalConfig(ScoreSettings, AnswerSettings):
    """Settings of ``mfpo eval``, which generates and then scores.

    Saved replies of a judge (``--judgements``) are for ``mfpo score``: they belong to answers that exist.
    """

    output_dir: str | None = None
    """Run folder that gets `answers/` and `scores/`; the model's own folder if not given."""


@dataclass(slots=True, kw_only=True)
class CompareConfig:
    """Settings of ``mfpo compare``."""

    runs: list[str] = field(metadata={"positional": True})
    """Run folders or score files; the others are compared with the first."""

    benchmarks: tuple[str, ...] = ()
    """Benchmarks and probes to show; all that the runs share if not given."""

    metrics: tuple[str, ...] = ()
    """Metrics to show; if not given all, or the most important ones where there are more than a dozen."""

    output_file: str | None = None
    """File to write as well: Markdown (.md), LaTeX (.tex), HTML (.html) or CSV (.csv), by its ending."""


@dataclass(slots=True, kw_only=True)
class ProbeConfig(ModelSettings):
    """Settings of ``mfpo probe``."""

    probe: Literal["distortion", "attention", "grounding"]
    """`distortion`: is the chosen answer still preferred when the image is distorted (needs --dataset);
    `attention`: how much of its attention goes to an object while the model names it (needs --dataset);
    `grounding`: is the caption that is true of a drawing preferred to that of an edited one (scenes, needs no
    dataset)."""

    dataset: str | None = None
    """Dataset folder of `mfpo build`, for `distortion` and `attention`."""

    num_pictures: int = 8
    """Rows of which `attention` saves the picture with the attention on it, in `attention/`."""

    output_dir: str | None = None
    """Run folder that gets `scores/PROBE.json`; the model's own folder if not given."""

    num_samples: int | None = None
    """Use the first N rows or scenes; if not given, all rows, or 1,000 scenes."""

    noise_scopes: tuple[Scope, ...] = ("region", "global", "black")
    """Distortions to try."""

    noise_steps: tuple[int, ...] = (300, 500, 700, 900)
    """Diffusion steps to try, for those distortions that add noise."""

    noise_schedules: tuple[Schedule, ...] = ("vcd",)
    """Diffusion schedules to try: `vcd`, `ddpm-linear`. The same step is a very different noise in each."""

    split: str = "test"
    """Part of the scene world that `grounding` uses: `validation` or `test`."""

    seed: int = 0
    """Seed of the scenes of `grounding`; the noise of `distortion` has the seeds of the rows."""
