"""The table of objectives, and how settings are fitted to a row of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, TypeAlias

from torch import Tensor

from mfpo.errors import UserError, nearest
from mfpo.records import Scope
from mfpo.training.objectives.dense import chip_at_start, chip_loss, ddpo_at_start, ddpo_loss
from mfpo.training.objectives.others import (
    halva_at_start,
    halva_loss,
    povid_at_start,
    povid_loss,
    selective_eos_at_start,
    selective_eos_loss,
)
from mfpo.training.objectives.preference import preference_at_start, preference_loss, sft_loss
from mfpo.training.objectives.records import (
    PLAIN,
    Answers,
    Detail,
    ObjectiveOutput,
    Options,
    SequenceLogps,
    Settings,
    Weights,
)

LossFunction: TypeAlias = Callable[[SequenceLogps, SequenceLogps | None, Answers, Settings], ObjectiveOutput]
PAIRWISE = frozenset(
    {
        "text_loss",
        "image_loss",
        "label_smoothing",
        "length_normalization",
        "reference_free",
        "target_margin",
    }
)
"""Options of the objectives that are made of text, image and margin term."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A row of the table.

    Attributes:
        name: What ``--objective`` calls it.
        weights: Default weights; a term whose default is 0 is not part of the objective, except ``sft``.
        loss: The function of log-probabilities; see ``docs/objectives.md`` for its arguments.
        at_start: Value of each term, unweighted, while the policy is the reference; None where it depends on
            the data.
        noise_scope: Scope of the rejected image that belongs to the objective, whatever the row says; None
            keeps the row's.
        beta: Default beta.
        options: Default options.
        takes: Names of the options that it takes.
        policy: What it needs to know of the policy's answers.
        reference: What it needs to know of the reference's.
        segments: Whether it needs the changed segments of the two answers.
        rejected: Whether it needs the rejected answer.
    """

    name: str
    weights: Weights
    loss: LossFunction = preference_loss
    at_start: Callable[[Settings], Mapping[str, float | None]] = preference_at_start
    noise_scope: Scope | None = None
    beta: float = 0.1
    options: Options = PLAIN
    takes: frozenset[str] = PAIRWISE
    policy: Detail = "sequences"
    reference: Detail = "sequences"
    segments: bool = False
    rejected: bool = True

    def with_weights(
        self,
        text: float | None = None,
        image: float | None = None,
        margin: float | None = None,
        sft: float | None = None,
    ) -> Weights:
        """The objective's weights with the given ones in their place.

        Raises:
            UserError: A weight is negative, belongs to a term that the objective does not have, or all are 0.
        """
        given = {"text": text, "image": image, "margin": margin, "sft": sft}
        merged = {}
        for term, weight in given.items():
            default: float = getattr(self.weights, term)
            if weight and not default and term != "sft":
                raise UserError(
                    f"objective {self.name!r} has no {term} term",
                    where=f"--{term}_weight {weight}",
                    fix="choose an objective that has it; `mfpo` has all three",
                )
            if weight is not None and weight < 0:
                raise UserError("a weight must not be negative", where=f"--{term}_weight {weight}")
            merged[term] = default if weight is None else float(weight)
        if not any(merged.values()):
            raise UserError(
                "all terms have weight 0, there is nothing to train", where=f"--objective {self.name}"
            )
        return Weights(**merged)

    def with_options(self, **given: Any) -> Options:
        """The objective's options with the given ones in their place; None leaves the objective's own.

        Raises:
            UserError: An option that the objective does not take, or a value out of range.
        """
        given = {name: value for name, value in given.items() if value is not None}
        for name, value in given.items():
            if name not in self.takes or (name == "image_loss" and not self.weights.image):
                raise UserError(
                    f"objective {self.name!r} does not take it",
                    where=f"--{name} {value}",
                    fix="leave it out; docs/objectives.md lists what each objective takes",
                )
        options = replace(self.options, **given)
        if not 0 <= options.label_smoothing < 0.5:
            raise UserError(
                "must be at least 0 and below 0.5", where=f"--label_smoothing {options.label_smoothing}"
            )
        losses = {options.text_loss} | ({options.image_loss} if self.weights.image else set())
        if options.label_smoothing and losses & {"ipo", "hinge"}:
            raise UserError(
                f"label smoothing is for sigmoid and robust, not for {', '.join(sorted(losses))}",
                where=f"--label_smoothing {options.label_smoothing}",
                fix="leave it out, or choose --text_loss sigmoid or robust (and --image_loss)",
            )
        for name in ("segment_weight", "kl_weight"):
            if getattr(options, name) < 0:
                raise UserError("must not be negative", where=f"--{name} {getattr(options, name)}")
        return options


OBJECTIVES: Mapping[str, Objective] = MappingProxyType(
    {
        objective.name: objective
        for objective in (
            Objective("dpo", Weights(text=1.0)),
            Objective("dpo+margin", Weights(text=1.0, margin=1.0)),
            Objective("mdpo", Weights(text=1.0, image=1.0, margin=1.0), noise_scope="crop"),
            Objective("mfpo", Weights(text=1.0, image=1.0, margin=1.0)),
            Objective(
                "simpo",
                Weights(text=1.0),
                beta=2.0,
                options=Options(length_normalization=True, reference_free=True, target_margin=1.0),
            ),
            Objective("ha-dpo", Weights(text=1.0, sft=0.5)),
            Objective(
                "ddpo",
                Weights(text=1.0),
                ddpo_loss,
                ddpo_at_start,
                beta=0.5,
                options=Options(segment_weight=5.0),
                takes=frozenset({"segment_weight"}),
                policy="tokens",
                reference="tokens",
                segments=True,
            ),
            Objective(
                "chip",
                Weights(text=1.0, image=1.0),
                chip_loss,
                chip_at_start,
                noise_scope="global",
                options=Options(segment_weight=4.0, kl_weight=0.1),
                takes=frozenset({"segment_weight", "kl_weight"}),
                policy="distributions",
                reference="distributions",
                segments=True,
            ),
            Objective(
                "halva",
                Weights(text=1.0),
                halva_loss,
                halva_at_start,
                options=Options(kl_weight=0.4),
                takes=frozenset({"kl_weight"}),
                policy="distributions",
                reference="distributions",
                segments=True,
            ),
            Objective(
                "povid",
                Weights(text=0.5, image=0.5),
                povid_loss,
                povid_at_start,
                noise_scope="global",
                takes=frozenset(),
                policy="distributions",
                reference="distributions",
            ),
            Objective(
                "selective-eos",
                Weights(text=1.0),
                selective_eos_loss,
                selective_eos_at_start,
                takes=frozenset(),
                policy="distributions",
                reference="none",
                rejected=False,
            ),
        )
    }
)
"""Objectives by name.

``mdpo`` (Wang et al. 2024) is the loss of ``mfpo`` with a random crop as m'; ``simpo`` is Meng et al. 2024,
equation 6; ``ha-dpo`` (Zhao et al. 2023) adds supervised training to DPO, for which its authors take other
data and we the chosen answers.
"""


def get_objective(name: str) -> Objective:
    """The objective of that name, from the table.

    Raises:
        UserError: There is none.
    """
    if name not in OBJECTIVES:
        raise UserError(
            f"unknown objective {name!r}",
            where="--objective",
            fix=f"{nearest(name, OBJECTIVES)}; a function of your own is written module:function",
        )
    return OBJECTIVES[name]


@dataclass(frozen=True, slots=True)
class Loss:
    """An objective with its settings.

    Attributes:
        objective: The objective.
        weights: Weights of its terms.
        beta: Strength of the pull to the reference.
        eta: Margin of equation 7.
        options: What else shapes its terms.
    """

    objective: Objective
    weights: Weights
    beta: float
    eta: float = 0.0
    options: Options = PLAIN

    def __call__(
        self,
        policy: SequenceLogps,
        reference: SequenceLogps | None,
        answers: Answers,
        *,
        weights: Weights | None = None,
    ) -> ObjectiveOutput:
        """Loss, terms and rewards of B rows; the supervised term is added where it has a weight.

        Args:
            policy: The model in training.
            reference: The reference; None for an objective that needs none.
            answers: The answers.
            weights: In place of the loss's own.
        """
        settings = self.settings if weights is None else replace(self.settings, weights=weights)
        output = self.objective.loss(policy, reference, answers, settings)
        if not settings.weights.sft:
            return output
        sft: Tensor = sft_loss(policy, answers)
        return replace(
            output, loss=output.loss + settings.weights.sft * sft, terms=output.terms | {"sft": sft}
        )

    def describe(self) -> dict[str, Any]:
        """Name and settings, JSON values."""
        return {
            "objective": self.objective.name,
            "weights": asdict(self.weights),
            "beta": self.beta,
            "eta": self.eta,
            "options": asdict(self.options),
        }

    @property
    def settings(self) -> Settings:
        """What the objective's function is given."""
        return Settings(self.weights, self.beta, self.eta, self.options)

    @property
    def reference_detail(self) -> Detail:
        """What is needed of the reference with these options."""
        return "none" if self.options.reference_free else self.objective.reference

    @property
    def terms_at_start(self) -> dict[str, float | None]:
        """Value of each term, unweighted, while policy and reference are the same; None where data decide."""
        terms = dict(self.objective.at_start(self.settings))
        return terms | {"sft": None} if self.weights.sft else terms

    @property
    def at_start(self) -> float | None:
        """The loss while policy and reference are the same; None where it depends on the data."""
        total = 0.0
        for term, value in self.terms_at_start.items():
            if value is None:
                return None
            total += self.weights.of(term) * value
        return total
