"""Natural-language inference: does one sentence follow from another?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mfpo.errors import UserError
from mfpo.models.hub import require_reachable

_BATCH_SIZE = 32


class Entailment:
    """A sequence classifier with a label ``entailment``, such as those trained on MNLI.

    Args:
        model_name_or_path: Checkpoint folder or Hub name.
        device: Where the model runs.

    Raises:
        UserError: It cannot be loaded, or has no such label.
    """

    def __init__(self, model_name_or_path: str, device: str | torch.device = "cpu") -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        where = f"--entailment_model {model_name_or_path}"
        try:
            require_reachable(model_name_or_path)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(model_name_or_path)
            model: Any = AutoModelForSequenceClassification.from_pretrained(
                model_name_or_path, dtype=torch.float32, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"no entailment model can be loaded: {str(error).strip().splitlines()[0]}",
                where=where,
                fix="give a folder or Hub name of a classifier trained on natural-language inference",
            ) from error
        labels = {str(name).lower(): int(index) for index, name in model.config.id2label.items()}
        if "entailment" not in labels:
            raise UserError(f"the classifier has no label entailment, only {', '.join(labels)}", where=where)
        self._label = labels["entailment"]
        self._model = model.to(device).eval()

    @torch.inference_mode()
    def entails(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether the second text of each pair follows from the first, by the most likely label.

        Args:
            pairs: Premise and hypothesis.
        """
        found: list[bool] = []
        for start in range(0, len(pairs), _BATCH_SIZE):
            batch = pairs[start : start + _BATCH_SIZE]
            inputs = self._tokenizer(
                [premise for premise, _ in batch],
                [hypothesis for _, hypothesis in batch],
                padding=True,
                truncation=True,
                return_tensors="pt",
            ).to(self._model.device)
            labels = self._model(**inputs).logits.argmax(-1).tolist()
            found += [label == self._label for label in labels]
        return found
