from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from mfpo.models import head as module
from mfpo.models.head import changes_logits, chunked_scores
from mfpo.models.logprobs import Layout, score_responses
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.collate import collate
from mfpo.preferences.encoding import SEQUENCES
from tiny_models import tiny_model, tiny_rows

N, D, V = 23, 8, 50


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Four tokens at a time, the last chunk shorter."""
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 4 * V)


def inputs(dtype=torch.float32):
    torch.manual_seed(0)
    return torch.randn(N, D, dtype=dtype, requires_grad=True), torch.randint(0, V, (N,))


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_whole_logits(trained, bias):
    layer = nn.Linear(D, V, bias=bias).requires_grad_(trained)
    hidden, labels = inputs()
    weights = torch.linspace(-1, 2, N)

    log_probs = layer(hidden).log_softmax(-1)
    expected = log_probs[torch.arange(N), labels]
    (expected * weights).sum().backward()
    wanted = [hidden.grad, *(p.grad for p in layer.parameters())]
    hidden.grad = None
    layer.zero_grad()

    logps, entropies = chunked_scores(layer, layer.forward, hidden, labels, entropies=True)
    assert not entropies.requires_grad
    assert torch.allclose(logps, expected, atol=1e-6)
    assert torch.allclose(entropies, -(log_probs.exp() * log_probs).sum(-1), atol=1e-6)
    (logps * weights).sum().backward()
    for found, want in zip([hidden.grad, *(p.grad for p in layer.parameters())], wanted, strict=True):
        assert (found is None) == (want is None)
        assert want is None or torch.allclose(found, want, atol=1e-6)


def test_a_double_precision_gradient_check():
    layer = nn.Linear(3, 7).double()
    hidden, labels = torch.randn(5, 3, dtype=torch.double, requires_grad=True), torch.arange(5)

    def function(hidden, weight, bias):
        return module.ChunkedScores.apply(hidden, weight, bias, labels, False)[0]

    # Results are float32, so the step of the finite difference is coarse.
    assert torch.autograd.gradcheck(
        function, (hidden, layer.weight, layer.bias), eps=1e-2, atol=1e-2, rtol=1e-2
    )


@pytest.mark.parametrize("trained", [True, False])
def test_bfloat16_is_no_worse_than_whole_logits(trained):
    layer = nn.Linear(D, V, bias=False)
    hidden, labels = inputs()

    def run(dtype, chunked):
        moved = nn.Linear(D, V, bias=False, dtype=dtype).requires_grad_(trained)
        moved.weight.data.copy_(layer.weight)
        states = hidden.detach().to(dtype).requires_grad_()
        if chunked:
            logps = chunked_scores(moved, moved.forward, states, labels, entropies=False)[0]
        else:
            logps = moved(states).float().log_softmax(-1)[torch.arange(N), labels]
        logps.sum().backward()
        return logps.detach(), states.grad.float()

    exact = run(torch.float32, False)
    for plain, ours, truth in zip(run(torch.bfloat16, False), run(torch.bfloat16, True), exact, strict=True):
        assert (ours - truth).norm() <= 1.2 * (plain - truth).norm()


def test_autocast_computes_logits_in_bfloat16():
    layer = nn.Linear(D, V, bias=False)
    hidden, labels = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = layer(hidden).float().log_softmax(-1)[torch.arange(N), labels]
        logps, _ = chunked_scores(layer, layer.forward, hidden, labels, entropies=False)
    assert torch.allclose(logps, expected, atol=1e-5)
    logps.sum().backward()
    assert layer.weight.grad.dtype == hidden.grad.dtype == torch.float32


def test_a_gpu_gets_chunks_that_fill_it():
    tokens, vocabulary = 1000, 150_000
    parts = list(module._chunks(tokens, vocabulary, torch.device("cuda")))
    assert parts[0] == slice(0, module.CUDA_CHUNK_ELEMENTS // vocabulary) and parts[0].stop > 256
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
    assert parts[-1].stop == tokens


def test_logits_never_exist_as_a_whole():
    """Nothing of N x V elements is made, forward or backward."""
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.ndim == 2 and out.shape[-1] == V:
                largest = max(largest, out.shape[0])
            return out

    layer = nn.Linear(D, V, bias=False)
    hidden, labels = inputs()
    with Watch():
        chunked_scores(layer, layer.forward, hidden, labels, entropies=True)[0].sum().backward()
    assert 0 < largest <= 4


@pytest.mark.parametrize("head", ["tied", "lora", "saved"])
def test_output_layers_that_are_tied_or_wrapped(head):
    model = tiny_model("llava")
    if head == "tied":
        model.lm_head.weight = model.model.language_model.embed_tokens.weight
    if head == "lora":
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False))
    if head == "saved":
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"]))
    rows, results = tiny_rows("llava"), []
    for layout in (Layout(), Layout(chunked=True)):
        model.zero_grad()
        batch = collate(rows, SEQUENCES, 0, layout)
        scores = score_responses(model, batch, ImageEncoder(model), entropies=True)
        (scores.logps * torch.linspace(-1, 1, 9)).sum().backward()
        results.append([scores.token_logps, scores.entropies, *(p.grad for p in model.parameters())])
    assert "forward" not in vars(model.get_output_embeddings()), "the layer is left as it was"
    for plain, ours in zip(*results, strict=True):
        assert (plain is None) == (ours is None)
        assert plain is None or torch.allclose(plain, ours, atol=1e-5, rtol=1e-4)


def test_models_that_change_their_logits_are_known():
    model = tiny_model("gemma3")
    assert not changes_logits(model)
    model.config.text_config.final_logit_softcapping = 30.0
    assert changes_logits(model)
