"""Load a vision-language model and its processor from a checkpoint folder or the Hub."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from mfpo.errors import UserError, nearest
from mfpo.models.adapters import merged, quiet_peft
from mfpo.models.hub import require_reachable
from mfpo.models.quantize import four_bit

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


DTYPES = ("float32", "bfloat16", "float16")


@dataclass(slots=True)
class VLM:
    """A model with the processor that feeds it.

    Attributes:
        model: Any ``AutoModelForImageTextToText``, possibly wrapped by PEFT.
        processor: Its processor; ``processor.tokenizer`` and ``processor.image_processor`` exist.
        name: What the user called it, for reports.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    name: str

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the processor."""
        return self.processor.tokenizer

    @property
    def image_processor(self) -> Any:
        """The image processor of the processor."""
        return self.processor.image_processor

    @property
    def device(self) -> torch.device:
        """The device of the model's first parameter."""
        return next(self.model.parameters()).device


def default_device() -> torch.device:
    """CUDA if there is one, then MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def process_device(timeout: timedelta = timedelta(minutes=30)) -> torch.device:
    """The device of this process: its own GPU where `torchrun` or `accelerate launch` started several.

    Args:
        timeout: How long they wait for each other from here on; torch's own ten minutes are less than one of
            them may need for rows of its own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return default_device()
    from accelerate import PartialState

    device: torch.device = PartialState(timeout=timeout).device
    return device


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes in it, float32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def named_dtype(name: str) -> torch.dtype:
    """A floating-point dtype by its name in torch.

    Raises:
        UserError: There is none of that name.
    """
    if name not in DTYPES:
        raise UserError(f"no precision {name!r}", where="--dtype", fix=nearest(name, ["auto", *DTYPES]))
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def load_processor(
    model_name_or_path: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> ProcessorMixin:
    """Load the processor alone, for work that needs no weights.

    Args:
        model_name_or_path: Checkpoint folder, adapter folder or Hub name.
        revision: Branch, tag or commit on the Hub.
        trust_remote_code: Whether code that comes with the checkpoint may run.

    Raises:
        UserError: Nothing can be opened under that name.
    """
    base, revision = plain_model(model_name_or_path, revision)
    _check_path(base, revision)
    try:
        return AutoProcessor.from_pretrained(base, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise _not_loadable(base, error) from error


def load_vlm(
    model_name_or_path: str,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = None,
    revision: str | None = None,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    load_in_4bit: bool = False,
) -> VLM:
    """Load a model and its processor, in evaluation mode.

    A folder that holds a PEFT adapter (``adapter_config.json``) is opened on top of the base model it names;
    where that is an adapter too, it is merged first, as it was before the outer one was trained.

    Args:
        model_name_or_path: Checkpoint folder, adapter folder or Hub name.
        dtype: ``auto`` (bfloat16 on a GPU that has it, else float32), ``checkpoint`` (as it is stored), a
            name such as ``bfloat16``, or a dtype.
        device: Device to put the model on; the best one there is when None.
        revision: Branch, tag or commit on the Hub; for an adapter that of its base model, by default the one
            it was trained on.
        attn_implementation: Attention kernel of ``transformers`` (``sdpa``, ``eager``,
            ``flash_attention_2``).
        trust_remote_code: Whether code that comes with the checkpoint may run.
        load_in_4bit: Whether to hold the language model in 4 bits; see [`mfpo.models.quantize`].

    Raises:
        UserError: Nothing can be opened under that name, it cannot be held in 4 bits here, or there is no
            such attention kernel.
    """
    plain, revision = plain_model(model_name_or_path, revision)
    _check_path(plain, revision)
    target = torch.device(device) if device is not None else default_device()
    if dtype == "checkpoint":
        dtype = "auto"
    elif isinstance(dtype, str):
        dtype = default_dtype(target) if dtype == "auto" else named_dtype(dtype)
    settings: dict[str, Any] = {
        "dtype": dtype,
        "revision": revision,
        "attn_implementation": attn_implementation,
        "trust_remote_code": trust_remote_code,
        "use_safetensors": True,
    }
    if load_in_4bit:
        settings |= {"quantization_config": four_bit(target), "device_map": {"": target}}
    model = _open(model_name_or_path, settings)
    processor = load_processor(model_name_or_path, revision=revision, trust_remote_code=trust_remote_code)
    if not load_in_4bit:
        model = model.to(target)
    return VLM(model=model.eval(), processor=processor, name=model_name_or_path)


def _open(model_name_or_path: str, settings: dict[str, Any]) -> Any:
    """A checkpoint, or an adapter on the model that it was trained on.

    Args:
        model_name_or_path: Checkpoint folder, adapter folder or Hub name.
        settings: For ``from_pretrained`` of the plain model.
    """
    base = adapter_base(model_name_or_path)
    if base is None:
        try:
            return AutoModelForImageTextToText.from_pretrained(model_name_or_path, **settings)
        except (OSError, ValueError, ImportError) as error:
            kernel = settings["attn_implementation"]
            if kernel is not None and "attention" in str(error).lower():
                raise _no_kernel(kernel, error) from error
            raise _not_loadable(model_name_or_path, error) from error
    # By itself transformers would leave an adapter of the base in the place where the outer one goes.
    model = merged(_open(base, settings))
    from peft import PeftModel

    try:
        with quiet_peft():
            return PeftModel.from_pretrained(model, model_name_or_path)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise _not_loadable(model_name_or_path, error) from error


def _check_path(model_name_or_path: str, revision: str | None) -> None:
    """Refuse what is no folder and cannot be had from the Hub, before the Hub is asked for it.

    Args:
        model_name_or_path: Checkpoint folder, adapter folder or Hub name (``name`` or ``owner/name``).
        revision: Branch, tag or commit on the Hub.

    Raises:
        UserError: There is no such folder, and it is no name of the Hub or there is no way to the Hub.
    """
    path = Path(model_name_or_path)
    on_hub = len(path.parts) <= 2 and not model_name_or_path.startswith((".", "/", "~"))
    if not on_hub and not path.exists():
        raise _not_loadable(model_name_or_path, FileNotFoundError("there is no such folder"))
    try:
        require_reachable(model_name_or_path, revision)
    except ConnectionError as error:
        raise _not_loadable(model_name_or_path, error) from None


def plain_model(model_name_or_path: str, revision: str | None = None) -> tuple[str, str | None]:
    """The checkpoint at the bottom: what is named, or what its adapter and the adapters below stand on.

    Args:
        model_name_or_path: Checkpoint folder, adapter folder or Hub name.
        revision: Its branch, tag or commit on the Hub; the one that the adapter was trained on when None.

    Raises:
        UserError: An adapter does not say what it stands on, or stands on itself.
    """
    names = [model_name_or_path]
    while (base := adapter_base(names[-1])) is not None:
        if base in names:
            raise UserError(
                "the adapter stands on itself",
                where=str(Path(names[-1]) / "adapter_config.json"),
                fix="name its base model there, as base_model_name_or_path",
            )
        revision = revision or _adapter_config(names[-1]).get("revision")
        names.append(base)
    return names[-1], revision


def adapter_base(model_name_or_path: str) -> str | None:
    """Name of the base model if the folder holds a PEFT adapter, else None."""
    if not (Path(model_name_or_path) / "adapter_config.json").is_file():
        return None
    base: str = _adapter_config(model_name_or_path)["base_model_name_or_path"]
    return base


def _adapter_config(folder: str) -> dict[str, Any]:
    path = Path(folder) / "adapter_config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        config["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the adapter does not say which model it belongs to: {error!r}",
            where=str(path),
            fix="save the adapter again; its adapter_config.json needs base_model_name_or_path",
        ) from None
    return config


def _no_kernel(name: str, error: Exception) -> UserError:
    return UserError(
        f"the model cannot attend by it: {str(error).strip().splitlines()[0]}",
        where=f"--attn_implementation {name}",
        fix="leave it out for the model's own choice, mostly sdpa",
    )


def _not_loadable(name: str, error: Exception) -> UserError:
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return UserError(
        f"no vision-language model can be loaded: {first_line}",
        where=f"--model_name_or_path {name}",
        fix="give a checkpoint folder or a Hub name; "
        "`mfpo scenes --train_model DIR` trains one that needs no download",
    )
