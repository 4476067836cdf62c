from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mfpo.errors import UserError
from mfpo.models.config import ExportConfig
from mfpo.models.export import run
from mfpo.models.load import load_vlm
from mfpo.training.config import TrainConfig
from mfpo.training.parameters import prepare_model


def adapter(tiny_llava: Path, folder: Path, **changes) -> Path:
    """An adapter of the tiny LLaVA whose weights are far from where they start."""
    vlm = load_vlm(str(tiny_llava), device="cpu", dtype="float32")
    config = TrainConfig(use_lora=True, lora_r=4, lora_alpha=8, **changes)
    model = prepare_model(vlm.model, config, name=str(tiny_llava))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    return folder


def logits(vlm) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(1, 3, 32, 32, generator=generator)
    token = vlm.model.config.image_token_id
    ids = torch.tensor([[1, *[token] * 16, 5, 6, 7]])
    with torch.no_grad():
        return vlm.model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=images).logits


@pytest.mark.parametrize(
    "changes", [{}, {"use_dora": True}, {"use_rslora": True}, {"train_projector": True}], ids=str
)
def test_outputs_equal_the_adapters(tiny_llava, tmp_path, changes):
    folder = adapter(tiny_llava, tmp_path / "adapter", **changes)
    out = run(ExportConfig(str(folder), str(tmp_path / "plain")))
    assert not list(out.glob("adapter*")) and list(out.glob("*.safetensors"))
    adapted = load_vlm(str(folder), device="cpu", dtype="float32")
    plain = load_vlm(str(out), device="cpu", dtype="float32")
    assert not hasattr(plain.model, "peft_config")
    difference = (logits(adapted) - logits(plain)).abs().max().item()
    assert difference < 1e-5
    base = load_vlm(str(tiny_llava), device="cpu", dtype="float32")
    assert (logits(adapted) - logits(base)).abs().max() > 1e-2, "an adapter that does nothing proves little"
    assert plain.processor.chat_template == base.processor.chat_template


def test_precision_of_the_weights(tiny_llava, tmp_path):
    folder = adapter(tiny_llava, tmp_path / "adapter")
    for dtype, expected in (("checkpoint", torch.float32), ("bfloat16", torch.bfloat16)):
        out = run(ExportConfig(str(folder), str(tmp_path / dtype), dtype=dtype))
        assert load_vlm(str(out), device="cpu", dtype="checkpoint").model.dtype == expected


def test_mistakes(tiny_llava, tmp_path):
    with pytest.raises(UserError, match="no adapter"):
        run(ExportConfig(str(tiny_llava), str(tmp_path / "out")))
    folder = adapter(tiny_llava, tmp_path / "adapter")
    for target in (folder, tmp_path, tiny_llava, tiny_llava.parent, Path.cwd()):
        with pytest.raises(UserError, match="must not be replaced"):
            run(ExportConfig(str(folder), str(target), overwrite=True))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="this is a file"):
        run(ExportConfig(str(folder), str(tmp_path / "file"), overwrite=True))
    (tmp_path / "file").unlink()
    used = tmp_path / "used"
    used.mkdir()
    (used / "keep.txt").write_text("mine")
    config = ExportConfig(str(folder), str(used))
    with pytest.raises(UserError, match="not empty"):
        run(config)
    assert (used / "keep.txt").read_text() == "mine"
    run(replace(config, overwrite=True))
    assert (used / "config.json").is_file() and not (used / "keep.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "used"], "nothing is left behind"
