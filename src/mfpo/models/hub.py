"""Whether a checkpoint can be had from the Hub at all, told at once."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants, try_to_load_from_cache

_FILES = ("config.json", "adapter_config.json")


def require_reachable(model_name_or_path: str, revision: str | None = None) -> None:
    """Complain about what is neither here nor can be had: the Hub's own client tries for a minute first.

    Without a network the Hub's name has no address, which the system says at once. Behind a proxy it may have
    none either, so that nothing is asked there.

    Args:
        model_name_or_path: Checkpoint folder or Hub name.
        revision: Branch, tag or commit.

    Raises:
        ConnectionError: It is no folder, not in the Hub's cache, and there is no way to the Hub.
    """
    if Path(model_name_or_path).exists() or constants.HF_HUB_OFFLINE or getproxies():
        return
    for file in _FILES:
        if isinstance(try_to_load_from_cache(model_name_or_path, file, revision=revision), str):
            return
    host = urlsplit(constants.ENDPOINT).hostname
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        raise ConnectionError(f"there is no such folder, and {host} cannot be reached") from None
