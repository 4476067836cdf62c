"""Shared fixtures: a tiny random LLaVA in a folder, and where the real data is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real photographs and official benchmark data; tests that need it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip(f"real data is not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint folder of a random LLaVA: 32 px, 16 image tokens, two layers of width 32."""
    from mfpo.scenes.llava import LlavaSize, create_llava, save_llava

    texts = [
        "USER: Describe the image. ASSISTANT: A kitchen with a red mug, a blue plate and a green apple."
    ] * 4
    size = LlavaSize(
        image_size=32,
        patch_size=8,
        vision_width=32,
        vision_layers=2,
        text_width=32,
        text_layers=2,
        vocab_size=320,
    )
    folder = tmp_path_factory.mktemp("tiny-llava")
    save_llava(create_llava(texts, size), str(folder))
    return folder
