"""What others do with a built folder: load it, train on it with TRL, read its card, find it on the Hub."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mfpo.errors import UserError
from mfpo.preferences.build import build_dataset
from mfpo.preferences.config import BuildConfig

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def picture(seed: int) -> bytes:
    data = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(values).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def config(tmp_path: Path) -> BuildConfig:
    """Rows with one image and one turn, with two images, and with several turns; one row is broken."""
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    answers = {"chosen": "A red mug on a plate.", "rejected": "A cat.", "score": 0.5}
    turns = [
        {"from": "human", "value": "<image>What room?"},
        {"from": "gpt", "value": "A kitchen."},
        {"from": "human", "value": "And what is in it?"},
    ]
    rows: list[dict[str, Any]] = [
        {"images": ["0.png"], "conversations": turns[:1], **answers},
        {"images": ["0.png", "1.png"], "conversations": turns[:1], **answers},
        {"images": ["2.png"], "conversations": turns, **answers},
        {"images": ["gone.png"], "conversations": turns, **answers},
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Source\n")
    boxes = [{"image": f"{n}.png", "boxes": {"mug": [[4, 4, 20, 20]]}} for n in range(3)]
    (tmp_path / "boxes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in boxes))
    return BuildConfig(
        dataset=str(tmp_path / "pairs.jsonl"),
        annotations=str(tmp_path / "boxes.jsonl"),
        output_dir=str(tmp_path / "built"),
    )


def load(config: BuildConfig) -> Any:
    from datasets import load_dataset

    cache = str(Path(config.output_dir).parent / "cache")
    return load_dataset(config.output_dir, split="train", cache_dir=cache)


@pytest.mark.parametrize("materialize", [False, True])
def test_trl_trains_on_the_folder_as_it_is(config: BuildConfig, tiny_llava: Path, materialize: bool) -> None:
    from trl import DPOConfig, DPOTrainer

    from mfpo.models.load import load_vlm

    build_dataset(replace(config, materialize=materialize, model_name_or_path=str(tiny_llava)))
    rows = load(config)
    assert rows.num_rows == 3 and {"keywords", "regions", "noise", "score"} <= set(rows.column_names)
    assert ("rejected_images" in rows.column_names) == materialize
    vlm = load_vlm(str(tiny_llava), device="cpu", dtype="float32")
    before = {name: value.clone() for name, value in vlm.model.state_dict().items()}
    trainer = DPOTrainer(
        model=vlm.model,
        args=DPOConfig(
            output_dir=str(Path(config.output_dir).parent / "trl"),
            max_steps=2,
            per_device_train_batch_size=3,
            learning_rate=1e-2,
            max_length=None,
            report_to="none",
            use_cpu=True,
            bf16=False,
            logging_steps=1,
        ),
        train_dataset=rows,
        processing_class=vlm.processor,
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(np.log(2), abs=1e-3) and losses[1] < losses[0]
    assert any(not value.equal(before[name]) for name, value in vlm.model.state_dict().items())


def test_the_card_is_one_that_others_read(config: BuildConfig) -> None:
    from datasets import load_dataset_builder
    from huggingface_hub import DatasetCard

    build_dataset(config)
    card = DatasetCard.load(Path(config.output_dir) / "README.md")
    data = card.data.to_dict()
    assert data["license"] == "cc-by-nc-4.0" and data["size_categories"] == ["n<1K"]
    assert data["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*"}]
    assert data["dataset_info"]["splits"][0]["num_examples"] == 3
    assert {"preference", "mfpo"} <= set(data["tags"])
    assert "| left out: missing-image | 1 |" in card.text and "noise_step: 500" in card.text
    assert "`pairs.jsonl`, read as .jsonl file, layout ShareGPT (LLaMA-Factory)." in card.text
    assert "regions: annotations" in card.text
    assert "@article" in card.text
    assert str(Path(config.output_dir).parent) not in card.content
    assert card.content.count("```") % 2 == 0
    builder = load_dataset_builder(config.output_dir, cache_dir=str(Path(config.output_dir).parent / "cache"))
    assert builder.info.splits["train"].num_examples == 3
    assert set(builder.info.features) == set(load(config).column_names)


class FakeHub:
    """Notes what the client of the Hub is asked for."""

    calls: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012
    error: Exception | None = None

    def create_repo(self, repo_id: str, **settings: Any) -> str:
        if self.error is not None:
            raise self.error
        self.calls.append(("create_repo", {"repo_id": repo_id, **settings}))
        return f"https://hub/datasets/{repo_id}"

    def upload_folder(self, **settings: Any) -> None:
        self.calls.append(("upload_folder", settings))

    def upload_file(self, **settings: Any) -> None:
        self.calls.append(("upload_file", settings))


def test_push_to_hub(
    config: BuildConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    monkeypatch.setattr(FakeHub, "calls", [])
    config = replace(config, push_to_hub="owner/mugs", hub_private_repo=True)
    build_dataset(config)
    created, folder, card = FakeHub.calls
    assert created == (
        "create_repo",
        {"repo_id": "owner/mugs", "repo_type": "dataset", "private": True, "exist_ok": True},
    )
    assert folder[1]["allow_patterns"] == ["data/*.parquet"], "other files name folders of this machine"
    assert folder[1]["folder_path"] == config.output_dir
    assert b'load_dataset("owner/mugs", split="train")' in card[1]["path_or_fileobj"]
    assert "uploaded to https://hub/datasets/owner/mugs" in capsys.readouterr().out
    monkeypatch.setattr(FakeHub, "error", OSError("no route to host\nmore"))
    with pytest.raises(UserError, match=r"--push_to_hub owner/mugs: .*no route to host"):
        build_dataset(config)


def test_a_changed_image_is_another_dataset(config: BuildConfig) -> None:
    build_dataset(config)
    source = Path(config.dataset).parent
    (source / "1.png").write_bytes(picture(77) + b"!")
    with pytest.raises(UserError, match="already here"):
        build_dataset(config)


def test_inspect_says_how_it_understands_the_source(
    config: BuildConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    build_dataset(replace(config, inspect=True, noise_image=-1, output_dir=""))
    shown = capsys.readouterr().out
    assert "ShareGPT (LLaMA-Factory) (--layout sharegpt)" in shown
    assert "it has the columns conversations, chosen, rejected, and images holds the images" in shown
    assert "1: 1.png, 32 x 32  <- searched and noised" in shown
    assert "[image] What room?" in shown and "A kitchen." in shown
    assert "4 20 20" in shown, "given boxes are shown"
    assert "Of the first 4 rows 3 can be used and 1 would be left out." in shown
    assert "missing-image" in shown and "pairs.jsonl:4" in shown


def test_inspect_loads_no_region_model(config: BuildConfig, capsys: pytest.CaptureFixture[str]) -> None:
    build_dataset(replace(config, inspect=True, annotations=None, regions="grounded-sam2"))
    assert "searched by grounded-sam2 when built" in capsys.readouterr().out


@pytest.mark.parametrize(("gpu", "backend"), [(False, "clipseg"), (True, "grounded-sam2")])
def test_inspect_names_the_backend_that_auto_takes(
    config: BuildConfig,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    gpu: bool,
    backend: str,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    build_dataset(replace(config, inspect=True, annotations=None))
    assert f"searched by {backend} (auto) when built" in capsys.readouterr().out


def test_an_edited_card_stays(config: BuildConfig) -> None:
    build_dataset(config)
    card = Path(config.output_dir) / "README.md"
    card.write_text(card.read_text() + "\nEdited by a person.\n")
    build_dataset(config)
    assert "Edited by a person." in card.read_text()
