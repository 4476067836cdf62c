"""``mfpo export``: an adapter and its base model as one plain checkpoint."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from mfpo.data.files import publish_folder
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
    target = Path(config.output_dir).resolve()
    _check_target(target, config)
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
        publish_folder(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    print(f"written to {config.output_dir}")
    return Path(config.output_dir)


def _check_target(target: Path, config: ExportConfig) -> None:
    """Nothing that is needed may be replaced.

    Args:
        target: The folder, with all its parents.
        config: The settings.

    Raises:
        UserError: Something is in the way, or the adapter, a model below it or the working directory is
            there or further inside.
    """
    where = f"--output_dir {config.output_dir}"
    needed, name = [Path.cwd()], config.model_name_or_path
    while True:
        needed.append(Path(name).resolve())
        base = adapter_base(name)
        if base is None:
            break
        name = base
    for path in needed:
        if path.exists() and path.is_relative_to(target):
            raise UserError(f"{path} is there, which must not be replaced", where, "choose another folder")
    if target.is_file():
        raise UserError("this is a file", where, "choose a folder")
    if target.exists() and not config.overwrite and any(target.iterdir()):
        raise UserError("the folder is not empty", where, "choose another, or add --overwrite")
