"""``mfpo export``: an adapter and its base model as one plain checkpoint."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from mfpo.errors import UserError
from mfpo.models.config import ExportConfig
from mfpo.models.load import adapter_base, load_vlm


def run(config: ExportConfig) -> Path:
    """Merge the adapter and save the result beside its processor.

    The folder appears as a whole or not at all.

    Args:
        config: The settings.

    Returns:
        The checkpoint folder.

    Raises:
        UserError: The folder holds no adapter, its base cannot be opened, or ``output_dir`` is in use.
    """
    where = f"--model_name_or_path {config.model_name_or_path}"
    if adapter_base(config.model_name_or_path) is None:
        raise UserError(
            "there is no adapter (adapter_config.json) to merge",
            where=where,
            fix="name the --output_dir of a training with --use_lora; a full training is plain already",
        )
    target = Path(config.output_dir)
    if target.resolve() == Path(config.model_name_or_path).resolve():
        raise UserError("the adapter's own folder cannot be replaced", where=f"--output_dir {target}")
    if target.exists() and not config.overwrite and (target.is_file() or any(target.iterdir())):
        raise UserError(
            "the folder is not empty",
            where=f"--output_dir {target}",
            fix="choose another, or add --overwrite",
        )
    vlm = load_vlm(
        config.model_name_or_path,
        dtype=config.dtype,
        device="cpu",
        trust_remote_code=config.trust_remote_code,
    )
    adapted: Any = vlm.model
    merged = adapted.merge_and_unload(safe_merge=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        merged.save_pretrained(temporary)
        vlm.processor.save_pretrained(temporary)
        temporary.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    print(f"written to {target}")
    return target
