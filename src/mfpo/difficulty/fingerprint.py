"""What stored scores depend on, part by part, so that scores that do not fit can say why."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mfpo.data.files import write_json
from mfpo.data.fingerprint import code_digest, library_versions
from mfpo.difficulty.config import Precision
from mfpo.models.logprobs import PLAIN, Layout
from mfpo.preferences.encoding import Rows, light_rows
from mfpo.records import PreferencePair

if TYPE_CHECKING:
    from mfpo.preferences.encoding import RowEncoder

CODE = (
    "data/images.py",
    "difficulty/chunks.py",
    "difficulty/entropy.py",
    "difficulty/prefetch.py",
    "difficulty/ragged.py",
    "difficulty/scores.py",
    "models/chat.py",
    "models/head.py",
    "models/logprobs.py",
    "models/mode.py",
    "models/packing.py",
    "models/vision.py",
    "preferences/collate.py",
    "preferences/encoding.py",
    "preferences/erase.py",
    "preferences/noise.py",
    "preferences/regions/masks.py",
    "preferences/rejected.py",
    "records.py",
)
"""Source that scores depend on: what `difficulty/scores.py` imports, as a test checks, but for what cannot
change a number. What loads, quantises or merges a model, and what chooses the layout, is not in it: weights,
configuration, processor and layout are parts of their own."""
UNRELATED = frozenset({"_name_or_path", "use_cache", "bos_token_id", "eos_token_id", "pad_token_id"})
"""Entries of a model's configuration that change no score; a trainer sets some of them."""
DIGEST = 64
"""Length of a SHA-256 in hex: values of that length are not shown."""


@dataclass(frozen=True)
class Fingerprint:
    """What scores depend on.

    Attributes:
        parts: Value or SHA-256 of each part, by what a user calls it.
    """

    parts: dict[str, str]

    @property
    def digest(self) -> str:
        """Sixteen hex digits that change with any part; the name of the files."""
        return hashlib.sha256(json.dumps(self.parts, sort_keys=True).encode()).hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write ``<digest>.json`` beside the scores."""
        write_json(folder / f"{self.digest}.json", self.parts)

    def differences(self, stored: dict[str, str]) -> list[str]:
        """The parts in which stored scores differ, values shown where they are short."""
        found = []
        for name, value in self.parts.items():
            other = stored.get(name, "unknown")
            if other != value:
                short = len(value) < DIGEST and len(other) < DIGEST
                found.append(f"{name} ({other} then, {value} now)" if short else name)
        return found


def refused(folders: Sequence[Path], wanted: Fingerprint) -> list[str]:
    """Why each set of scores that is stored there does not fit, one line each.

    Args:
        folders: Where scores may be.
        wanted: What is needed.
    """
    lines = []
    for path in sorted(path for folder in folders for path in folder.glob("*.json")):
        try:
            differences = wanted.differences(json.loads(path.read_text()))
        except (OSError, ValueError, AttributeError):
            continue
        if differences:
            lines.append(f"{path.with_suffix('')}: other {', '.join(differences)}")
    return lines


def fingerprint(
    model: nn.Module, encoder: RowEncoder, rows: Rows, precision: Precision, layout: Layout = PLAIN
) -> Fingerprint:
    """Everything the scores of these rows depend on; not the order of the rows.

    Args:
        model: The model that scores them.
        encoder: Its processor, the length limit and the noise.
        rows: The rows; those of a folder are read without their images.
        precision: What the model computes in.
        layout: How the sequences are laid out.
    """
    processor: Any = encoder.processor
    config: Any = model.config
    template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
    ids, noise = _rows_digests(rows, encoder)
    return Fingerprint(
        {
            "model weights": weights_digest(model).hex(),
            "model configuration": _digest(_without(config.to_dict(), UNRELATED)),
            "attention kernel": str(getattr(config, "_attn_implementation", None)),
            "chat template": _digest(template),
            "tokenizer": _tokenizer_digest(processor.tokenizer),
            "image processor": _digest(processor.image_processor.to_json_string()),
            "max_length": str(encoder.max_length),
            "precision": precision,
            "layout of sequences": json.dumps(asdict(layout)),
            "rows": ids,
            "noise and regions": noise,
            "code of mfpo": code_digest(CODE),
            **{f"version of {name}": version for name, version in library_versions().items()},
        }
    )


def weights_digest(model: nn.Module) -> bytes:
    """SHA-256 over the names, shapes, dtypes and values of all weights; each tensor by a thread."""

    def digest(item: tuple[str, Tensor]) -> bytes:
        name, tensor = item
        found = hashlib.sha256(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        found.update(tensor.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy().data)
        return found.digest()

    with ThreadPoolExecutor() as threads:
        return hashlib.sha256(b"".join(threads.map(digest, sorted(model.state_dict().items())))).digest()


def _rows_digests(rows: Rows, encoder: RowEncoder) -> tuple[str, str]:
    """SHA-256 over the rows' ids, and over what makes their rejected images; 32 bytes a row are held."""
    ids, noise = [], []
    for pair in light_rows(rows):
        ids.append(pair.id)
        noise.append(hashlib.sha256(_noise_text(pair, encoder).encode()).digest())
    return _digest(sorted(ids)), hashlib.sha256(b"".join(sorted(noise))).hexdigest()


def _noise_text(pair: PreferencePair, encoder: RowEncoder) -> str:
    noise = encoder.noise.apply(pair.noise)
    regions = [(region.rle, region.box) for region in pair.regions]
    stored = [hashlib.sha256(source.read()).hexdigest() for source in pair.rejected_images]
    return json.dumps([pair.id, asdict(noise), regions, stored])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _without(settings: Any, names: frozenset[str]) -> Any:
    """Nested settings without the entries of those names."""
    if not isinstance(settings, dict):
        return settings
    return {name: _without(value, names) for name, value in settings.items() if name not in names}


def _tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 over everything a fast tokenizer does, or over the vocabulary of another one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return _digest(tokenizer.get_vocab())
    # Calls leave their padding and truncation behind; every call of ours sets its own.
    return _digest(_without(json.loads(backend.to_str()), frozenset({"padding", "truncation"})))
