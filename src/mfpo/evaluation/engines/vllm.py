"""Answers by vLLM, which must be installed by the user."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfpo.errors import RowError, Skip, UserError
from mfpo.evaluation.engines.base import Outcome, Question, Sampling
from mfpo.models.chat import render_prompt
from mfpo.models.load import adapter_base, load_processor, plain_model
from mfpo.records import row_seed, user_message

if TYPE_CHECKING:
    from mfpo.evaluation.config import AnswerSettings

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Adapter ranks that vLLM makes room for."""


class VllmEngine:
    """A vLLM engine in this process; it batches by itself, ``batch_size`` prompts are handed over at once.

    Args:
        llm: ``vllm.LLM``.
        vllm: The module.
        processor: The model's processor, for its chat template.
        sampling: How answers are drawn.
        batch_size: Prompts that are handed over at once; answers are on the disk after each such group.
        adapter: ``vllm.lora.request.LoRARequest`` of an adapter on top of the model.
    """

    def __init__(
        self, llm: Any, vllm: Any, processor: Any, sampling: Sampling, batch_size: int, adapter: Any = None
    ) -> None:
        self.llm, self.vllm, self.processor = llm, vllm, processor
        self.sampling, self.batch_size, self.adapter = sampling, batch_size, adapter

    @classmethod
    def open(cls, config: AnswerSettings, sampling: Sampling) -> VllmEngine:
        """Load the model into vLLM.

        Raises:
            UserError: vLLM is not installed.
        """
        try:
            import vllm
            from vllm.lora.request import LoRARequest
        except ImportError as error:
            raise UserError(
                f"vLLM cannot be imported: {error}", where="--engine vllm", fix="pip install vllm"
            ) from None
        name = config.model_name_or_path
        base = adapter_base(name)
        if base is not None and adapter_base(base) is not None:
            raise UserError(
                f"vLLM takes one adapter, and this one stands on another, {base}",
                where=name,
                fix="mfpo export makes a plain checkpoint of both",
            )
        lora = {} if base is None else {"enable_lora": True, "max_lora_rank": _room_for(name)}
        llm = vllm.LLM(
            model=base or name,
            dtype=config.dtype,
            revision=plain_model(name, config.revision)[1],
            trust_remote_code=config.trust_remote_code,
            seed=sampling.seed,
            limit_mm_per_prompt={"image": 1},
            # Only our own settings decide how tokens are drawn, as with the other engines.
            generation_config="vllm",
            **lora,
        )
        processor = load_processor(name, revision=config.revision, trust_remote_code=config.trust_remote_code)
        adapter = None if base is None else LoRARequest("adapter", 1, name)
        return cls(llm, vllm, processor, sampling, max(config.batch_size, 256), adapter)

    @property
    def answered_by(self) -> set[str]:
        """Nothing that the settings don't say."""
        return set()

    def answer(self, questions: Sequence[Question]) -> Iterator[list[Outcome]]:
        """Outcomes in groups, in the order of the questions."""
        for start in range(0, len(questions), self.batch_size):
            outcomes, asked, prompts = [], [], []
            for question in questions[start : start + self.batch_size]:
                try:
                    prompts.append(self._prompt(question))
                    asked.append(question)
                except RowError as error:
                    skip = Skip(question.id, error.reason, error.detail)
                    outcomes.append(Outcome(question.id, skip=skip))
            if prompts:
                parameters = [self._parameters(question) for question in asked]
                results = self.llm.generate(prompts, parameters, use_tqdm=False, lora_request=self.adapter)
                outcomes += [
                    Outcome(question.id, result.outputs[0].text.strip())
                    for question, result in zip(asked, results, strict=True)
                ]
            yield outcomes

    def _prompt(self, question: Question) -> dict[str, Any]:
        """Tokens rather than text: vLLM would put a second beginning-of-sequence token before a text."""
        text = render_prompt(self.processor, user_message(question.text))
        bos = self.processor.tokenizer.bos_token
        special = not (bos and text.startswith(bos))
        tokens = self.processor.tokenizer(text, add_special_tokens=special)["input_ids"]
        return {"prompt_token_ids": list(tokens), "multi_modal_data": {"image": question.open_image()}}

    def _parameters(self, question: Question) -> Any:
        sampled = self.sampling.temperature > 0
        return self.vllm.SamplingParams(
            max_tokens=self.sampling.max_new_tokens,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p if sampled else 1.0,
            seed=row_seed(self.sampling.seed, question.id) if sampled else None,
        )


def _room_for(adapter: str) -> int:
    """The smallest rank that vLLM offers and the adapter fits into."""
    rank = int(json.loads((Path(adapter) / "adapter_config.json").read_text()).get("r", 8))
    fitting = [size for size in _RANKS if size >= rank]
    if not fitting:
        raise UserError(
            f"vLLM takes adapters of rank {_RANKS[-1]} at most, this one has {rank}",
            where=adapter,
            fix="use --engine local",
        )
    return fitting[0]
