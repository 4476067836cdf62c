"""A finished dataset folder to the Hub."""

from __future__ import annotations

import re
from pathlib import Path

from mfpo.errors import UserError

PUSHED = ("data/*.parquet",)
"""Files that are uploaded, beside the card; others name folders of this machine, or belong to one model."""

_LOADED = re.compile(r'load_dataset\("[^"]*"')


def push_dataset(folder: str | Path, repo: str, *, private: bool) -> str:
    """Upload a dataset folder to a dataset repository, which is created if need be.

    The token is that of the environment (``HF_TOKEN``) or of ``hf auth login``.

    Args:
        folder: A finished dataset folder.
        repo: ``owner/name``.
        private: Whether a new repository is private.

    Returns:
        Address of the repository.

    Raises:
        UserError: The Hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        address = api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=str(folder),
            allow_patterns=list(PUSHED),
            delete_patterns=["data/train-*.parquet"],
            commit_message="Upload dataset made with mfpo",
        )
        card = _LOADED.sub(f'load_dataset("{repo}"', (Path(folder) / "README.md").read_text(encoding="utf-8"))
        api.upload_file(
            path_or_fileobj=card.encode(),
            path_in_repo="README.md",
            repo_id=repo,
            repo_type="dataset",
            commit_message="Upload its card",
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        lines = str(error).strip().splitlines()
        raise UserError(
            f"the dataset was built, but not uploaded: {lines[0] if lines else type(error).__name__}",
            where=f"--push_to_hub {repo}",
            fix="set HF_TOKEN to a token that may write there, and run the same command again",
        ) from None
    return str(address)
