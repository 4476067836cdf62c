"""Settings of ``mfpo rank``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from mfpo.errors import UserError
from mfpo.records import Schedule, Scope

SharedPrefix: TypeAlias = Literal["auto", "on", "off"]

Estimator: TypeAlias = Literal["paper", "token-mean", "semantic"]
StageOrder: TypeAlias = Literal["none", "easy_to_hard", "hard_to_easy", "random"]
Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "mixed"]
BY_DIFFICULTY: tuple[StageOrder, ...] = ("easy_to_hard", "hard_to_easy")
ESTIMATORS: tuple[Estimator, ...] = ("paper", "token-mean")
"""Those that the reference pass computes by the way."""


@dataclass(frozen=True)
class RankConfig:
    """Score every row once with the initial model: reference log-probabilities, entropy, difficulty."""

    dataset: str = ""
    """Dataset folder that `mfpo build` wrote; the scores are added to it under reference/."""
    model_name_or_path: str = ""
    """Checkpoint folder or Hub name of the model that will be trained."""
    noise_scope: Scope | None = None
    """Scope of the rejected image in place of the rows' own; give what `train` will be given."""
    noise_step: int | None = None
    """Diffusion step in place of the rows' own."""
    noise_step_max: int | None = None
    """Draw each row's step uniformly from noise_step to this one."""
    noise_schedule: Schedule | None = None
    """Noise schedule in place of the rows' own."""
    noise_feather: float | None = None
    """Share of the picture's shorter side over which the noise fades out, in place of the rows' own."""
    revision: str | None = None
    """Branch, tag or commit of the model on the Hub."""
    attn_implementation: str | None = None
    """Attention kernel: sdpa, eager, flex_attention or flash_attention_2; the model's choice when not
    given."""
    shared_prefix: SharedPrefix = "auto"
    """Encode image and prompt once for all answers: auto (where a check on the first rows finds the numbers
    of plain sequences), on (refuse if not) or off. Give what `train` will be given."""
    trust_remote_code: bool = False
    """Run code that comes with the checkpoint."""
    load_in_4bit: bool = False
    """Hold the language model in 4 bits (QLoRA); give what `train` will be given."""
    max_length: int | None = 2048
    """Tokens of image, prompt and response; responses are cut to fit. Give what `train` will be given."""
    per_device_batch_size: int = 16
    """Rows scored at once; each is three sequences."""
    precision: Precision = "auto"
    """float32, bfloat16 (weights too) or mixed (float32 weights); both of the latter have bfloat16 matrix
    products and float32 norms. Training in another precision does not use the scores; auto is what LoRA
    training chooses on this machine."""
    semantic: bool = False
    """Also sample answers to every row and store their semantic entropy, for difficulty `semantic`."""
    semantic_samples: int = 10
    """Answers sampled for each row, at temperature 1."""
    semantic_max_new_tokens: int = 64
    """Tokens after which a sampled answer is cut."""
    semantic_similarity: float = 0.9
    """Cosine of sentence embeddings from which two answers mean the same."""
    entailment_model: str | None = None
    """Classifier of natural-language inference, folder or Hub name: two answers then mean the same where each
    entails the other."""
    seed: int = 0
    """Seed of the sampled answers; a row's own is a hash of it and the row's id."""
    overwrite: bool = False
    """Score again although the scores are there."""
    dry_run: bool = False
    """Score one batch, say what stored scores would be refused for and how long the pass takes, and stop."""


REQUIRED = {
    "dataset": "give a folder that `mfpo build` or `mfpo scenes` wrote",
    "model_name_or_path": "give a checkpoint folder or a name of the Hub",
    "output_dir": "give a folder for the result",
}
"""What to give for settings that have no default."""


def require(settings: object, *names: str) -> None:
    """Complain about settings that are needed and empty.

    Args:
        settings: Settings of a command.
        names: Names of those that are needed, keys of [`REQUIRED`].

    Raises:
        UserError: One is empty.
    """
    for name in names:
        if not getattr(settings, name):
            raise UserError("a required setting is missing", where=f"--{name}", fix=REQUIRED[name])
