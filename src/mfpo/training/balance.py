"""Balance of the modalities: weights of text and image term from the ratio of their reward margins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from mfpo.training.objectives import Weights

DECAY = 0.95
"""Share of the running margin that a batch leaves in place; it looks back over about 20 batches."""
FLOOR = 0.1
"""Reward that is added to both margins, so that the ratio is 1 at the start and defined near 0."""
LIMIT = 4.0
"""Largest ratio that is acted on."""


class ModalityBalance(TrainerCallback, ExportableState):
    """Gives the modality that lags behind more weight, after each batch.

    With running means M_text and M_image of the reward margins beta (d_w - d_l) and beta (d_w - d_w') of
    equations 5 and 6 (exponential with `DECAY`, from 0, detached), and

        rho = (max(M_text, 0) + FLOOR) / (max(M_image, 0) + FLOOR),  kept within [1/LIMIT, LIMIT],

    the text term is multiplied by 2 / (1 + rho) and the image term by 2 rho / (1 + rho). Both are 1 while the
    margins are equal, and they always add up to 2. The means are part of every checkpoint.

    Attributes:
        text: M_text, in units of reward.
        image: M_image, in units of reward.
    """

    def __init__(self) -> None:
        self.text, self.image = 0.0, 0.0

    def factors(self) -> tuple[float, float]:
        """What text and image term are multiplied by."""
        ratio = (max(self.text, 0.0) + FLOOR) / (max(self.image, 0.0) + FLOOR)
        ratio = min(max(ratio, 1 / LIMIT), LIMIT)
        return 2 / (1 + ratio), 2 * ratio / (1 + ratio)

    def weights(self, base: Weights) -> Weights:
        """The weights for the next batch.

        Args:
            base: Weights as set.
        """
        text, image = self.factors()
        return replace(base, text=base.text * text, image=base.image * image)

    def update(self, text: float, image: float) -> None:
        """Take in a batch.

        Args:
            text: Mean text margin of its rows, over all processes.
            image: Mean image margin.
        """
        self.text = DECAY * self.text + (1 - DECAY) * text
        self.image = DECAY * self.image + (1 - DECAY) * image

    def state(self) -> dict[str, dict[str, float]]:
        """What a checkpoint keeps, in ``trainer_state.json``."""
        return {"args": {}, "attributes": {"text": self.text, "image": self.image}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on with the means of the checkpoint that is resumed, if one is."""
        stored: Any = (state.stateful_callbacks or {}).get(type(self).__name__, {})
        for name, value in stored.get("attributes", {}).items():
            setattr(self, name, float(value))
