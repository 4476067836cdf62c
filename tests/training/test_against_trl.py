"""Text-only preference against TRL, which shares no code with ours."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset, Image, List
from trl import DPOConfig, DPOTrainer

from mfpo.data.images import open_image
from mfpo.models.load import VLM, load_vlm
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.encoding import EncodedRows, RowEncoder
from mfpo.training.arguments import training_arguments
from mfpo.training.batching import CurriculumDataset, PreferenceCollator, ScheduledRow
from mfpo.training.config import TrainConfig
from mfpo.training.objectives import Loss, get_objective
from mfpo.training.reference import CopyReference
from mfpo.training.trainer import PreferenceTrainer
from preference_rows import make_pairs

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def load(tiny_llava) -> tuple[VLM, torch.nn.Module]:
    """A policy that has moved away from its reference; TRL takes the BOS from the template."""
    vlm = load_vlm(str(tiny_llava), device="cpu", dtype="float32")
    vlm.processor.chat_template = "{{ bos_token }}" + vlm.processor.chat_template
    reference = load_vlm(str(tiny_llava), device="cpu", dtype="float32").model
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in vlm.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return vlm, reference


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("kind", "smoothing"), [("sigmoid", 0.0), ("robust", 0.1), ("ipo", 0.0), ("hinge", 0.0)]
)
def test_loss_and_gradients_of_dpo_equal_trls(tiny_llava, tmp_path, kind, smoothing):
    pairs = make_pairs(3)
    beta = 0.3

    vlm, reference = load(tiny_llava)
    data = Dataset.from_dict(
        {
            "images": [[open_image(pair.images[0])] for pair in pairs],
            **{name: [getattr(pair, name) for pair in pairs] for name in ("prompt", "chosen", "rejected")},
        }
    ).cast_column("images", List(Image()))
    trl = DPOTrainer(
        model=vlm.model,
        ref_model=reference,
        args=DPOConfig(
            output_dir=str(tmp_path / "trl"),
            beta=beta,
            loss_type=kind,
            label_smoothing=smoothing,
            max_length=None,
            per_device_train_batch_size=3,
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
        ),
        train_dataset=data,
        processing_class=vlm.processor,
    )
    batch = trl.data_collator([trl.train_dataset[i] for i in range(3)])
    vlm.model.train()
    expected = trl.compute_loss(vlm.model, batch)
    expected.backward()
    expected_gradients = gradients(vlm.model)

    vlm, reference = load(tiny_llava)
    config = TrainConfig(output_dir=str(tmp_path / "ours"), per_device_train_batch_size=3)
    rows = EncodedRows(pairs, RowEncoder(vlm.processor, rejected_image=False))
    dataset = CurriculumDataset(rows, [ScheduledRow(i, 1) for i in range(3)], None, ("chosen", "rejected"))
    collator = PreferenceCollator(("chosen", "rejected"), vlm.tokenizer.pad_token_id)
    objective = get_objective("dpo")
    ours = PreferenceTrainer(
        vlm.model,
        training_arguments(config, "float32", vlm.device),
        dataset=dataset,
        collator=collator,
        loss=Loss(
            objective,
            objective.weights,
            beta,
            options=objective.with_options(text_loss=kind, label_smoothing=smoothing),
        ),
        reference=CopyReference(reference),
        images=ImageEncoder(vlm.model),
        processor=vlm.processor,
    )
    vlm.model.train()
    loss = ours.compute_loss(vlm.model, collator([dataset[i] for i in range(3)]))
    loss.backward()

    untrained = {"sigmoid": 0.6931, "robust": 0.6931, "ipo": 1 / (4 * beta**2), "hinge": 1.0}[kind]
    assert abs(expected.item() - untrained) > 1e-3, "a policy that equals its reference would prove little"
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    found = gradients(vlm.model)
    trained = {name for name in expected_gradients if expected_gradients[name].abs().max() > 0}
    assert trained <= found.keys()
    for name in trained:
        assert torch.allclose(found[name], expected_gradients[name], atol=1e-5), name
