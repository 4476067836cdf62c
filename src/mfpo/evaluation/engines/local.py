"""Answers by a model in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mfpo.errors import RowError, Skip
from mfpo.evaluation.decoding import make_decoder
from mfpo.evaluation.engines.base import Outcome, Question, Sampling
from mfpo.models.generation import Decoder, generate_batches
from mfpo.models.load import VLM, load_vlm
from mfpo.records import user_message

if TYPE_CHECKING:
    from PIL.Image import Image

    from mfpo.evaluation.config import AnswerSettings


class LocalEngine:
    """A loaded model.

    Args:
        vlm: The model and its processor.
        sampling: How answers are drawn.
        batch_size: Answers generated at once.
        decoder: How tokens are chosen; plainly when None.
    """

    def __init__(
        self, vlm: VLM, sampling: Sampling, batch_size: int = 32, decoder: Decoder | None = None
    ) -> None:
        self.vlm, self.sampling, self.batch_size, self.decoder = vlm, sampling, batch_size, decoder

    @classmethod
    def open(
        cls, config: AnswerSettings, sampling: Sampling, vlm: VLM | None = None, device: str | None = None
    ) -> LocalEngine:
        """Load the model, unless it is given."""
        decoder = make_decoder(config.decoding, config.decoding_options, config.seed)
        vlm = vlm or load_vlm(
            config.model_name_or_path,
            dtype=config.dtype,
            device=device or config.device,
            revision=config.revision,
            attn_implementation=config.attn_implementation,
            trust_remote_code=config.trust_remote_code,
        )
        # OPERA's beams are a batch of their own.
        return cls(vlm, sampling, 1 if config.decoding == "opera" else config.batch_size, decoder)

    @property
    def answered_by(self) -> set[str]:
        """Nothing that the settings don't say."""
        return set()

    def answer(self, questions: Sequence[Question]) -> Iterator[list[Outcome]]:
        """Outcomes batch by batch, the longest questions first."""
        broken: list[Outcome] = []

        def note(row: int, error: RowError) -> None:
            skip = Skip(questions[row].id, error.reason, error.detail)
            broken.append(Outcome(questions[row].id, skip=skip))

        batches = generate_batches(
            self.vlm,
            _Pictures(questions),
            [user_message(question.text) for question in questions],
            max_new_tokens=self.sampling.max_new_tokens,
            batch_size=self.batch_size,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            seed=self.sampling.seed,
            ids=[question.id for question in questions],
            decoder=self.decoder,
            on_broken=note,
        )
        for batch in batches:
            yield [*broken, *(Outcome(questions[row].id, answer) for row, answer in batch)]
            broken.clear()
        if broken:
            yield broken


class _Pictures(Sequence["Image"]):
    """The questions' pictures, each opened when it is asked for."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = questions

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: Any) -> Any:
        return self.questions[index].open_image()
