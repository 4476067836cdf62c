from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from layout_mistakes import MISTAKES, made
from mfpo.errors import UserError
from mfpo.models.logprobs import PLAIN, Layout
from mfpo.models.packing import Forest, set_tree_attention
from mfpo.preferences import layouts
from mfpo.preferences.encoding import SEQUENCES
from mfpo.preferences.layouts import choose_layout
from tiny_models import tiny_model, tiny_rows

TESTS = str(Path(__file__).resolve().parents[1])


class Rows(list):
    """Encoded rows with what the choice asks of their encoder."""

    class encoder:  # noqa: N801
        pad_token_id = 0


def choose(kind, setting="auto", model=None, autocast=None, count=3):
    model = tiny_model(kind) if model is None else model
    rows = Rows(tiny_rows(kind, count))
    return choose_layout(model, rows, SEQUENCES, autocast or nullcontext(), setting)


@pytest.mark.parametrize("kind", ["llava", "qwen3_vl", "idefics3"])
def test_prompts_are_shared_where_the_numbers_are_the_same(kind):
    assert choose(kind).layout == Layout(shared=True, chunked=True)
    assert choose(kind, "off").layout == PLAIN


@pytest.mark.parametrize("kind", ["llava", "qwen3_vl", "idefics3"])
def test_prompts_are_shared_in_low_precision(kind):
    assert choose(kind, model=tiny_model(kind).bfloat16()).layout.shared
    assert choose(kind, autocast=torch.autocast("cpu", dtype=torch.bfloat16)).layout.shared


@pytest.mark.parametrize("scale", [1, 100])
def test_what_low_precision_may_change_follows_from_the_model(scale, monkeypatch):
    """A hundredfold output layer makes every rounding error a hundred times as large, and every mistake."""
    model = tiny_model("llava")
    model.lm_head.weight.data *= scale
    model.bfloat16()
    # Kernels of a GPU give a row the same numbers in any company.
    monkeypatch.setattr(layouts.LayoutCheck, "_company_noise", lambda self: (0.0, 0.0))
    assert choose("llava", model=model).layout.shared
    monkeypatch.setattr(
        Forest, "tail_mask", lambda self, number, device, dtype: torch.zeros(1, 1, dtype=dtype)
    )
    assert not choose("llava", model=model).layout.shared


@pytest.mark.parametrize(
    ("kind", "reason"), [("paligemma", "differ by"), ("gemma3", "has a window of 16 tokens")]
)
def test_prompts_that_see_all_of_themselves_keep_their_sequences(kind, reason):
    choice = choose(kind)
    assert choice.layout == Layout(shared=False, chunked=True)
    assert reason in choice.reason and "\n" not in choice.reason
    with pytest.raises(UserError, match="cannot share prompts"):
        choose(kind, "on")


def test_a_wrong_mask_is_noticed_also_in_low_precision(monkeypatch):
    def leak(self, number, device, dtype):
        tree = self.trees[number]
        return torch.zeros(sum(tree.responses), tree.length, dtype=dtype)

    monkeypatch.setattr(Forest, "tail_mask", leak)
    for model in (tiny_model("llava"), tiny_model("llava").bfloat16()):
        assert not choose("llava", model=model).layout.shared


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "mixed"])
def test_a_mistake_in_the_layout_is_noticed(mistake, precision):
    model = tiny_model("llava")
    autocast = torch.autocast("cpu", dtype=torch.bfloat16) if precision == "mixed" else None
    model = model.bfloat16() if precision == "bfloat16" else model
    assert choose("llava", model=model, autocast=autocast).layout.shared
    with made(mistake):
        choice = choose("llava", model=model, autocast=autocast)
    assert not choice.layout.shared and "log-probabilities differ" in choice.reason


def test_one_wrong_token_of_many_is_noticed_in_low_precision(monkeypatch):
    """A difference of 1.5 nats at one token is below the noise of the mean over a long answer."""
    monkeypatch.setattr(layouts.LayoutCheck, "_company_noise", lambda self: (0.1, 0.4))
    monkeypatch.setattr(layouts.LayoutCheck, "_rounding_noise", lambda self: (0.05, 0.3))
    score = layouts.LayoutCheck._score
    rows = Rows(tiny_rows("llava", 2))

    def one_off(self, layout, rows):
        found = score(self, layout, rows)
        if layout.shared:
            found[0, 1] += off
        return found

    monkeypatch.setattr(layouts.LayoutCheck, "_score", one_off)
    model = tiny_model("llava").bfloat16()
    off = 0.5
    assert choose_layout(model, rows, SEQUENCES, nullcontext()).layout.shared
    off = 1.5
    choice = choose_layout(model, rows, SEQUENCES, nullcontext())
    assert "differ by 1.5 (0.8 is allowed)" in choice.reason


@pytest.mark.parametrize("kind", ["paligemma", "gemma3"])
def test_prompts_that_see_all_of_themselves_are_noticed_in_low_precision(kind):
    assert not choose(kind, model=tiny_model(kind).bfloat16()).layout.shared
    assert not choose(kind, autocast=torch.autocast("cpu", dtype=torch.bfloat16)).layout.shared


def test_every_thread_may_compile_many_kernels_of_flex_attention():
    """Layers that are computed again in the backward pass are run by a thread of autograd."""
    look = "import torch._dynamo.config as c, threading; from mfpo.models.packing import allow_recompiling; "
    look += f"import sys; sys.path.insert(0, {TESTS!r}); from tiny_models import tiny_model; "
    look += "model = tiny_model('llava'); show = lambda: print(c.recompile_limit); "
    look += "allow_recompiling(model); show(); model.set_attn_implementation('flex_attention'); "
    look += "allow_recompiling(model); show(); "
    look += "thread = threading.Thread(target=show); thread.start(); thread.join()"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    found = [int(line) for line in done.stdout.split()]
    assert found == [8, 64, 64]


def test_logits_that_are_changed_afterwards_come_from_the_model():
    model = tiny_model("llava")
    model.config.text_config.logits_scaling = 2.0
    assert choose("llava", model=model).layout == Layout(shared=True, chunked=False)


def test_generation_is_not_affected():
    model = tiny_model("llava")
    ids = torch.tensor([[0, 0, 3, 4, 5], [1, 2, 3, 4, 5]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    options = {"attention_mask": mask, "max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(ids, **options)
    set_tree_attention(model, True)
    assert torch.equal(model.generate(ids, **options), expected)
