"""Settings of ``mfpo train``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeAlias

from mfpo.difficulty.config import Estimator, SharedPrefix, StageOrder
from mfpo.errors import UserError, nearest
from mfpo.records import Schedule, Scope
from mfpo.training.recipes import RECIPES

ReferenceKind: TypeAlias = Literal["precomputed", "adapter", "copy"]
PairLoss: TypeAlias = Literal["sigmoid", "robust", "ipo", "hinge"]


SKIPPED_FILE = "skipped.jsonl"
"""Rows that could not be used; the last file that a training writes."""


@dataclass(frozen=True)
class RunSettings:
    """What is trained on what, and where the result goes."""

    dataset: str = ""
    """Dataset folder that `mfpo build` wrote."""
    model_name_or_path: str = ""
    """Checkpoint folder or Hub name of the model to start from; it is the reference as well."""
    output_dir: str = ""
    """Folder for the trained checkpoint or LoRA adapter, its settings, metrics and checkpoints."""


@dataclass(frozen=True)
class ObjectiveSettings:
    """The objective and what shapes its terms; None is the objective's own value."""

    objective: str = "mfpo"
    """dpo, dpo+margin, mdpo (the loss of mfpo with a randomly cropped image), mfpo, simpo, ha-dpo, ddpo,
    chip, halva, povid, selective-eos, or a function of your own, module:function; see docs/objectives.md."""
    beta: float | None = None
    """Strength of the pull to the reference: reward = beta * (log pi - log pi_ref). The objective's own when
    not given: 0.1, or 0.5 for ddpo and 2 for simpo."""
    eta: float = 0.0
    """Margin that the chosen reward is to exceed, equation 7."""
    text_weight: float | None = None
    """Weight of the text term, equation 5; the objective's own (1) when not given."""
    image_weight: float | None = None
    """Weight of the image term, equation 6; the objective's own if not given; 0 saves the third sequence."""
    margin_weight: float | None = None
    """Weight of the margin term, equation 7; the objective's own when not given."""
    sft_weight: float | None = None
    """Weight of supervised training on the chosen answer beside any objective: mean negative log-probability
    of its tokens. The objective's own when not given: 0.5 for ha-dpo, else 0."""
    text_loss: PairLoss | None = None
    """Loss of the text term: sigmoid (DPO), robust, ipo (log-ratios per token) or hinge."""
    image_loss: PairLoss | None = None
    """Loss of the image term, likewise."""
    label_smoothing: float | None = None
    """Assumed share of rows whose preference is wrong, 0 to below 0.5: conservative DPO with sigmoid,
    unbiased with robust."""
    length_normalization: bool = False
    """Divide log-probabilities by the number of the answer's tokens; beta must then be about as many times
    larger."""
    reference_free: bool = False
    """Rewards beta * log pi without a reference, so that no reference pass is needed."""
    target_margin: float | None = None
    """What the difference of rewards of the text term is to exceed; the gamma of SimPO."""
    segment_weight: float | None = None
    """Weight of tokens in which the two answers differ, others have 1; gamma of ddpo, 1 + lambda of chip."""
    kl_weight: float | None = None
    """Weight of the divergence from the reference in chip and halva."""
    balance_modalities: bool = False
    """Shift weight between text and image term by the ratio of their running reward margins, to the one that
    lags behind."""


@dataclass(frozen=True)
class LoraSettings:
    """The adapter."""

    use_lora: bool = False
    """Train a LoRA adapter of the language model instead of its weights."""
    lora_r: int = 128
    """Rank of the adapter."""
    lora_alpha: int = 256
    """Scale of the adapter; its output is multiplied by lora_alpha / lora_r, or with use_rslora by
    lora_alpha / sqrt(lora_r)."""
    lora_dropout: float = 0.0
    """Dropout before the adapter. The model's own dropout is always off."""
    lora_target_modules: list[str] | None = None
    """Names of linear layers that get an adapter, such as q_proj; all of the language model when not given.
    Layers of the vision tower never do."""
    use_dora: bool = False
    """Train direction and magnitude of the adapted weights apart (DoRA); slower, and better at small
    ranks."""
    use_rslora: bool = False
    """Scale the adapter by lora_alpha / sqrt(lora_r) (rsLoRA), which keeps large ranks stable."""
    load_in_4bit: bool = False
    """Hold the frozen language model in 4 bits (QLoRA, NF4 with double quantisation); needs --use_lora, a GPU
    and bitsandbytes."""


@dataclass(frozen=True)
class TrainConfig(LoraSettings, ObjectiveSettings, RunSettings):
    """Train a vision-language model on text and image preference together, from easy rows to hard ones."""

    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES

    recipe: str | None = None
    """Settings by a name: mfpo (the paper's, the default) or grounded (docs/objectives.md). They come over
    those of the --config file and under other flags; named in the file, under the file's own. From Python:
    TrainConfig.from_recipe(name, ...)."""
    noise_scope: Scope | None = None
    """Where the rejected image is corrupted, in place of the rows' own scope."""
    noise_step: int | None = None
    """Diffusion step of the noise, 0 to 999, in place of the rows' own."""
    noise_step_max: int | None = None
    """Draw each row's step uniformly from noise_step to this one."""
    noise_schedule: Schedule | None = None
    """Noise schedule in place of the rows' own."""
    noise_feather: float | None = None
    """Share of the picture's shorter side over which the noise fades out, in place of the rows' own."""
    stages: StageOrder = "easy_to_hard"
    """Order of training: none (all rows at once), easy_to_hard, hard_to_easy or random (random stages)."""
    difficulty: Estimator = "paper"
    """Entropy that rows are sorted by: paper (grows with length), token-mean (free of length) or semantic
    (of the meanings of sampled answers, which `mfpo rank --semantic` stores)."""
    rescore_between_stages: bool = False
    """Rank what is left with the model as it is after the first stage, and cut it into stages anew."""
    learning_rate: float | None = None
    """Peak learning rate; 5e-7 for full and 1e-5 for LoRA training of a 7B model when not given. The
    scene world's small model trains at 1e-5 by `mfpo` and at 3e-4 by `dpo+margin`."""
    lr_scheduler_type: str = "cosine"
    """Learning-rate schedule over all stages together, any of transformers."""
    warmup_ratio: float = 0.03
    """Share of all steps over which the learning rate rises to its peak."""
    num_train_epochs: int = 1
    """Passes over the rows of each stage."""
    max_steps: int = -1
    """Optimizer steps of the whole training, in place of num_train_epochs; shared among stages by size."""
    per_device_train_batch_size: int = 4
    """Rows in a forward pass; each is two or three sequences."""
    max_tokens: int | None = None
    """Tokens of a forward pass, images included; more rows than fit are passed one part after the other, with
    the gradients of all together. With prompts shared a row takes its two prompts and three responses."""
    gradient_accumulation_steps: int = 4
    """Forward passes for each optimizer step."""
    max_length: int | None = 2048
    """Tokens of image, prompt and response; responses are cut to fit, images and prompts never."""
    train_projector: bool = False
    """Train the projector between vision tower and language model too. While it is frozen, the features of
    each image are computed once and kept, if those of all rows are expected to fit into 1 GiB."""
    train_vision_tower: bool = False
    """Train the vision tower too."""
    reference: ReferenceKind = "precomputed"
    """Where reference log-probabilities come from: precomputed (one pass before training, or what `mfpo rank`
    stored), adapter (the model with its adapter switched off) or copy (a frozen copy held in memory). chip,
    halva and povid compare whole distributions and need one of the latter two."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    bf16: bool | None = None
    """Compute in bfloat16; on a GPU that has it when not given. Full training keeps float32 weights, LoRA
    training keeps the frozen weights in bfloat16."""
    report_to: str = "none"
    """Where metrics go besides metrics.jsonl: none, tensorboard, wandb, trackio, or several with commas."""
    plot_every: int = 10
    """Lines of metrics between two drawings of the curves in output_dir/plots; 0 for none."""
    logging_steps: int = 10
    """Steps between two lines of metrics."""
    save_steps: int = 0
    """Steps between two checkpoints to resume from; 0 saves the result alone."""
    revision: str | None = None
    """Branch, tag or commit of the model on the Hub."""
    attn_implementation: str | None = None
    """Attention kernel: sdpa, eager, flex_attention or flash_attention_2; the model's choice when not
    given."""
    shared_prefix: SharedPrefix = "auto"
    """Encode image and prompt once for all answers: auto (where a check on the first rows finds the numbers
    of plain sequences), on (refuse if not) or off."""
    trust_remote_code: bool = False
    """Run code that comes with the checkpoint."""
    resume_from_checkpoint: str | None = None
    """A checkpoint folder, `last` for the newest in output_dir, or `auto` for the newest if there is one; it
    ends as an uninterrupted run does."""
    seed: int = 0
    """Seed of the order of rows within a stage and of the adapter's first weights."""
    dataloader_num_workers: int = 0
    """Processes that decode images."""
    push_to_hub: bool = False
    """Upload the result to the Hugging Face Hub."""
    dry_run: bool = False
    """Do all checks, print them with one decoded batch, and stop."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Any other field of transformers.TrainingArguments (max_grad_norm, deepspeed, fsdp, ...)."""

    def __post_init__(self) -> None:
        """Refuse a recipe that is a name and nothing else.

        Single settings may be others than the recipe's, which flags and files override.

        Raises:
            UserError: There is no recipe of that name, or none of what it sets is set.
        """
        if self.recipe is None:
            return
        where = f"recipe {self.recipe}"
        if self.recipe not in self.recipes:
            raise UserError("there is no such recipe", where=where, fix=nearest(self.recipe, self.recipes))
        defaults = {item.name: item.default for item in fields(self)}
        recipe = self.recipes[self.recipe].items()
        own = {name: value for name, value in recipe if value != defaults[name]}
        if own and all(getattr(self, name) != value for name, value in own.items()):
            settings = ", ".join(f"{name}={value!r}" for name, value in own.items())
            raise UserError(
                f"none of its settings is set ({settings})",
                where=where,
                fix=f"from Python make the configuration by TrainConfig.from_recipe({self.recipe!r}, ...);"
                " or leave recipe out",
            )

    @classmethod
    def from_recipe(cls, name: str, **settings: Any) -> TrainConfig:
        """The configuration of a recipe.

        Args:
            name: Name of the recipe.
            settings: Other settings; they go before the recipe's.

        Raises:
            UserError: There is no recipe of that name, or all that is its own is overridden.
        """
        return cls(**{"recipe": name, **cls.recipes.get(name, {}), **settings})
