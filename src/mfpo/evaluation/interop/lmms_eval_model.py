"""A checkpoint or adapter of ours as a model of lmms-eval.

python -m lmms_eval --model mfpo --model_args pretrained=runs/mine --tasks pope --batch_size 16
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from tqdm.auto import tqdm

from mfpo.models.generation import generate
from mfpo.models.load import load_vlm
from mfpo.records import user_message

DEFAULT_NEW_TOKENS = 1024


class MfpoModel(lmms):
    """Answers lmms-eval's requests with `mfpo generate`'s own code: same template, same batches.

    Args:
        pretrained: Checkpoint folder, adapter folder or Hub name.
        batch_size: Answers generated at once.
        device: Device; the best one there is when None.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        attn_implementation: Attention kernel; the model's choice when None.
        revision: Branch, tag or commit on the Hub.
        trust_remote_code: Run code that comes with the checkpoint.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str = "auto",
        attn_implementation: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        self.batch_size = int(batch_size)
        self.vlm = load_vlm(
            pretrained,
            dtype=dtype,
            device=device,
            attn_implementation=attn_implementation,
            revision=revision,
            trust_remote_code=trust_remote_code,
        )

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """An answer to each request, in their order; each has one picture."""
        answers: list[str] = []
        with tqdm(total=len(requests), desc="mfpo", disable=self.rank != 0) as bar:
            for settings, batch in _alike(requests):
                answers += self._answer(settings, batch)
                bar.update(len(batch))
        return answers

    def _answer(self, settings: dict[str, Any], requests: Sequence[Instance]) -> list[str]:
        pictures, prompts = [], []
        for request in requests:
            context, _, to_visual, doc_id, task, split = request.args
            visuals = list(to_visual(self.task_dict[task][split][doc_id]))
            if len(visuals) != 1:
                raise NotImplementedError(
                    f"task {task!r} shows {len(visuals)} pictures; this model takes one"
                )
            pictures.append(visuals[0].convert("RGB"))
            prompts.append(user_message(context.replace("<image>", "").strip()))
        sampled = bool(settings.get("do_sample")) and float(settings.get("temperature") or 0) > 0
        found = generate(
            self.vlm,
            pictures,
            prompts,
            max_new_tokens=int(settings.get("max_new_tokens") or DEFAULT_NEW_TOKENS),
            batch_size=self.batch_size,
            temperature=float(settings["temperature"]) if sampled else 0.0,
            top_p=float(settings.get("top_p") or 1.0) if sampled else 1.0,
        )
        return [_until(answer, settings.get("until")) for answer in found]

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Not offered: the tasks of hallucination benchmarks generate."""
        raise NotImplementedError("mfpo's lmms-eval model generates answers; it has no loglikelihood")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Not offered."""
        raise NotImplementedError("mfpo's lmms-eval model answers one round")


def _alike(requests: Sequence[Instance]) -> Iterator[tuple[dict[str, Any], list[Instance]]]:
    """Runs of requests with the same settings, so that they share batches."""
    for _, group in groupby(requests, key=lambda request: repr(sorted(request.args[1].items(), key=str))):
        run = list(group)
        yield dict(run[0].args[1]), run


def _until(answer: str, stops: str | Sequence[str] | None) -> str:
    """The answer up to the first of the stop texts."""
    for stop in [stops] if isinstance(stops, str) else stops or ():
        if stop:
            answer = answer.split(stop)[0]
    return answer
