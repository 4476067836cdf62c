"""Shared fixtures: a tiny random LLaVA in a folder, and where the real data is."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
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


def number_of_threads() -> tuple[object, object]:
    """What decides it in this process and in those it starts; None before PyTorch is there."""
    torch = sys.modules.get("torch")
    return torch and torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")


@pytest.fixture(autouse=True)
def threads_stay_as_they_are() -> Iterator[None]:
    """Sums over another number of threads differ in their last bits: no test may leave one to the next."""
    before = number_of_threads()
    yield
    after = number_of_threads()
    assert after == before or before[0] is None, f"threads and OMP_NUM_THREADS: {before}, now {after}"


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
