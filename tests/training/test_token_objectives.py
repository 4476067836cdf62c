"""Objectives that look at single tokens or at whole distributions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from objectives_helpers import F64, answers, by_tokens, from_logits, settings
from torch.nn import functional as F

from mfpo.training.objectives import OBJECTIVES, Answers, BySequence, Loss, SequenceLogps
from mfpo.training.objectives.dense import chip_loss, ddpo_loss, sequence_kl
from mfpo.training.objectives.others import halva_loss, povid_at_start, povid_loss, selective_eos_loss
from mfpo.training.segments import changed_segments

LOG2 = math.log(2)


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


def random_logits(seed: int, rows=1, length=3, vocabulary=4, *, grad=False) -> BySequence:
    generator = torch.Generator().manual_seed(seed)
    return BySequence(
        *(
            torch.randn(rows, length, vocabulary, generator=generator, dtype=F64).requires_grad_(grad)
            for _ in range(3)
        )
    )


class TestDenseDPO:
    def test_by_hand(self):
        """gamma 5, beta 0.5. Chosen: log-ratios 0.2 0.4 0.0 with the second changed, so
        (0.2 + 5 * 0.4 + 0) / (2 + 5) = 2.2 / 7. Rejected: two tokens, log-ratios -0.1 and -0.3, the second
        changed: (-0.1 - 5 * 0.3) / 6 = -1.6 / 6. L = softplus(-0.5 (2.2/7 + 1.6/6)).
        """
        policy = by_tokens([-1.0, -1.0, -1.0], [-1.1, -2.3, 0.0])
        reference = by_tokens([-1.2, -1.4, -1.0], [-1.0, -2.0, 0.0])
        layout = answers((3, 2), segments=([0, 1, 0], [0, 1, 0]))
        out = ddpo_loss(policy, reference, layout, settings(beta=0.5, segment_weight=5.0))
        assert out.loss.item() == pytest.approx(softplus(-0.5 * (2.2 / 7 + 1.6 / 6)), abs=1e-12)
        assert out.rewards.chosen.item() == pytest.approx(0.5 * 2.2 / 7)

    def test_weight_one_is_dpo_per_token(self):
        """Without a weight on changes it is DPO of mean log-probabilities."""
        policy, reference = by_tokens([-1.0, -0.5, -1.0], [-3.0, -2.0, 0.0]), by_tokens([0.0] * 3, [0.0] * 3)
        layout = answers((3, 2), segments=([1, 1, 0], [1, 0, 0]))
        out = ddpo_loss(policy, reference, layout, settings(beta=1.0, segment_weight=1.0))
        assert out.loss.item() == pytest.approx(softplus(2.5 / 3 - 2.5), abs=1e-12)


class TestKL:
    def test_by_hand(self):
        """KL((1/2, 1/2) || (1/4, 3/4)) = 1/2 log 2 + 1/2 log(2/3), at one position of two; the other is
        padding."""
        policy = torch.tensor([[[0.25, 0.75], [0.9, 0.1]]], dtype=F64).log()
        reference = torch.tensor([[[0.5, 0.5], [0.2, 0.8]]], dtype=F64).log() + 3.0
        found = sequence_kl(policy, reference, torch.tensor([[True, False]]))
        assert found.item() == pytest.approx(0.5 * LOG2 + 0.5 * math.log(2 / 3), abs=1e-6)


class TestCHiP:
    labels = BySequence(torch.tensor([[0, 1, 2]]), torch.tensor([[0, 3, -100]]), torch.tensor([[0, 1, 2]]))

    def layout(self) -> Answers:
        return answers((3, 2), segments=([0, 1, 1], [0, 1, 0]), labels=self.labels)

    def test_by_hand(self):
        """As its docstring says, from token log-ratios and divergences that are computed apart."""
        ours, theirs = random_logits(1), random_logits(2)
        policy, reference = from_logits(self.labels, ours), from_logits(self.labels, theirs)
        out = chip_loss(
            policy, reference, self.layout(), settings(1.0, 1.0, beta=0.5, segment_weight=4.0, kl_weight=0.1)
        )
        d = {
            kind: (getattr(policy.tokens, kind) - getattr(reference.tokens, kind))[0]
            for kind in ("chosen", "rejected", "image_rejected")
        }
        s_w = d["chosen"][0] + 4 * d["chosen"][1] + 4 * d["chosen"][2]
        s_l = d["rejected"][0] + 4 * d["rejected"][1]
        s_v = d["image_rejected"][0] + 4 * d["image_rejected"][1] + 4 * d["image_rejected"][2]
        kl = {}
        for kind, length in (("chosen", 3), ("rejected", 2)):
            p = getattr(theirs, kind)[0, :length].softmax(-1)
            q = getattr(ours, kind)[0, :length].softmax(-1)
            kl[kind] = (p * (p / q).log()).sum().item()
        argument = 0.5 * ((s_w - s_l).item() + (s_w - s_v).item() - 0.1 * (kl["rejected"] - kl["chosen"]))
        assert out.loss.item() == pytest.approx(softplus(-argument), abs=1e-5)

    def test_no_gradient_reaches_the_divergence_on_the_chosen_answer(self):
        """sg(KL_w): with the log-probabilities held fixed, only the rejected answer's logits move the
        loss."""
        ours = random_logits(1, grad=True)
        policy = from_logits(self.labels, ours)
        fixed = SequenceLogps(
            policy.chosen.detach(),
            policy.rejected.detach(),
            policy.image_rejected.detach(),
            policy.tokens.map(torch.Tensor.detach),
            ours,
        )
        reference = from_logits(self.labels, random_logits(2))
        out = chip_loss(
            fixed, reference, self.layout(), settings(1.0, 1.0, segment_weight=4.0, kl_weight=0.1)
        )
        out.loss.sum().backward()
        assert ours.chosen.grad is None and ours.rejected.grad.abs().sum() > 0


class TestHALVA:
    def test_by_hand(self):
        """Two phrase pairs; pi(c) = 0.2 against pi(h) = 0.6, and 0.5 against 0.5 * 0.2 = 0.1; a third
        segment is empty in the rejected answer and does not count: (log(0.8 / 0.2) + log(0.6 / 0.5)) / 2
        without divergence.
        """
        chosen = [math.log(0.2), math.log(0.9), math.log(0.5), math.log(0.7)]
        rejected = [math.log(0.6), math.log(0.9), math.log(0.5), math.log(0.2)]
        policy = by_tokens(chosen, rejected)
        same = torch.zeros(1, 4, 2, dtype=F64)
        policy = SequenceLogps(policy.chosen, policy.rejected, None, policy.tokens, BySequence(same, same))
        layout = answers((4, 4), segments=([1, 0, 2, 3], [1, 0, 2, 2]))
        out = halva_loss(policy, policy, layout, settings(kl_weight=0.4))
        expected = (math.log(0.8 / 0.2) + math.log(0.6 / 0.5)) / 2
        assert out.terms["phrase"].item() == pytest.approx(expected, abs=1e-12)
        assert out.loss.item() == pytest.approx(expected, abs=1e-6) and out.terms["kl"].item() == 0

    def test_divergence_is_added(self):
        labels = BySequence(torch.tensor([[0, 1, 2]]), torch.tensor([[0, 3, 2]]))
        ours, theirs = random_logits(1), random_logits(2)
        policy, reference = from_logits(labels, ours), from_logits(labels, theirs)
        layout = answers((3, 3), segments=([0, 0, 0], [0, 0, 0]), labels=labels)
        out = halva_loss(policy, reference, layout, settings(kl_weight=0.4))
        p, q = theirs.chosen.softmax(-1), ours.chosen.softmax(-1)
        assert out.terms["phrase"].item() == 0, "no phrase differs"
        assert out.loss.item() == pytest.approx(0.4 * (p * (p / q).log()).sum().item(), abs=1e-5)


class TestPOVID:
    def test_by_hand(self):
        """With the picture noised, the policy would say token 1 and then 0. With the clean picture it gives
        them 0.5 * 0.25, the reference 0.25 * 0.25: d_n = log 2. The chosen answer, tokens 0 and 0: policy
        0.5 * 0.25, reference 0.75 * 0.25: d_w = log(2/3). d_l = -log 3 as given.
        """
        clean = torch.tensor([[[0.5, 0.5], [0.25, 0.75]]], dtype=F64).log()
        noised = torch.tensor([[[0.1, 0.9], [0.6, 0.4]]], dtype=F64).log()
        before = torch.tensor([[[0.75, 0.25], [0.25, 0.75]]], dtype=F64).log()
        d_l = torch.tensor([-math.log(3)], dtype=F64)
        policy = SequenceLogps(
            clean[..., 0].sum(-1), d_l, noised[..., 0].sum(-1), None, BySequence(clean, clean, noised)
        )
        reference = SequenceLogps(
            before[..., 0].sum(-1), 0 * d_l, 0 * d_l, None, BySequence(before, before, before)
        )
        out = povid_loss(policy, reference, answers((2, 2)), settings(0.5, 0.5, beta=2.0))
        d_w, d_n = math.log(2 / 3), math.log(2)
        text, image = softplus(-2 * (d_w + math.log(3))), softplus(-2 * (d_w - d_n))
        assert out.terms["text"].item() == pytest.approx(text, abs=1e-6)
        assert out.terms["image"].item() == pytest.approx(image, abs=1e-6)
        assert out.loss.item() == pytest.approx(0.5 * text + 0.5 * image, abs=1e-6)
        # A term that has no weight needs no sequence of its own.
        no_image = replace(policy, image_rejected=None, logits=BySequence(clean, clean))
        out = povid_loss(no_image, reference, answers((2, 2)), settings(0.5, 0.0, beta=2.0))
        assert out.terms.keys() == {"text"} == povid_at_start(settings(0.5, 0.0)).keys()
        assert out.loss.item() == pytest.approx(0.5 * text, abs=1e-6)
        no_text = replace(policy, rejected=None)
        out = povid_loss(no_text, reference, answers((2, 2)), settings(0.0, 0.5, beta=2.0))
        assert out.terms.keys() == {"image"}
        assert out.loss.item() == pytest.approx(0.5 * image, abs=1e-6)


class TestSelectiveEOS:
    labels = BySequence(torch.tensor([[0, 1, 2, -100]]))

    def layout(self) -> Answers:
        mask = BySequence(self.labels.chosen >= 0)
        return Answers(mask, self.labels, None, eos_token_id=2)

    def test_by_hand(self):
        """EOS is token 2. Position 1: p = (0.3, 0.2, 0.5), label 0: 0.3 / 0.5. Position 2: (0.1, 0.4, 0.5),
        label 1: 0.4 / 0.5. Position 3, whose label is EOS: (0.2, 0.3, 0.5): 0.5. The fourth is padding.
        """
        p = torch.tensor([[[0.3, 0.2, 0.5], [0.1, 0.4, 0.5], [0.2, 0.3, 0.5], [1, 1, 1]]], dtype=F64)
        logits = p.log().requires_grad_()
        policy = from_logits(self.labels, BySequence(logits))
        out = selective_eos_loss(policy, None, self.layout(), settings())
        expected = -(math.log(0.6) + math.log(0.8) + math.log(0.5)) / 3
        assert out.loss.item() == pytest.approx(expected, abs=1e-6)
        out.loss.sum().backward()
        eos = logits.grad[0, :, 2]
        assert eos[:2].tolist() == [0.0, 0.0], "going on does not teach against ending"
        assert eos[2].item() == pytest.approx(-0.5 / 3, abs=1e-6)
        assert logits.grad[0, 3].abs().sum() == 0

    def test_certain_end_stays_finite(self):
        """Where the model is sure to end but the answer goes on, p of the label is 0 / 0 unless done in
        logits."""
        logits = torch.tensor([[[0.0, 1.0, 200.0]] * 4], dtype=torch.float32)
        out = selective_eos_loss(
            from_logits(self.labels, BySequence(logits)), None, self.layout(), settings()
        )
        assert out.loss.item() == pytest.approx((softplus(1.0) + softplus(-1.0)) / 3, abs=1e-5)


@pytest.mark.parametrize("name", ["ddpo", "chip", "halva", "povid", "selective-eos"])
def test_value_while_policy_is_reference(name):
    objective = OBJECTIVES[name]
    labels = TestCHiP.labels
    model = from_logits(labels, random_logits(3))
    layout = answers((3, 2), segments=([0, 1, 1], [0, 1, 0]), labels=labels, eos=2)
    loss = Loss(objective, objective.weights, objective.beta, options=objective.options)
    out = loss(model, None if loss.reference_detail == "none" else model, layout)
    assert set(out.terms) == set(loss.terms_at_start)
    for term, value in loss.terms_at_start.items():
        assert value is None or out.terms[term].item() == pytest.approx(value, abs=1e-6)
    if loss.at_start is not None:
        assert out.loss.item() == pytest.approx(loss.at_start, abs=1e-6)


@pytest.mark.parametrize("name", ["ddpo", "chip", "halva", "povid", "selective-eos"])
def test_padding_changes_nothing(name):
    """Three more columns of padding, whatever the logits there are."""
    objective = OBJECTIVES[name]
    loss = Loss(objective, objective.weights, objective.beta, options=objective.options)
    results = []
    for extra in (0, 3):
        labels = TestCHiP.labels.map(lambda row: F.pad(row, (0, extra), value=-100))  # noqa: B023
        padded = [
            random_logits(seed).map(lambda x: F.pad(x, (0, 0, 0, extra), value=2.5))  # noqa: B023
            for seed in (1, 2)
        ]
        policy, reference = (from_logits(labels, logits) for logits in padded)
        segments = [row + [0] * extra for row in ([0, 1, 1], [0, 1, 0])]
        mask = labels.map(lambda row: row >= 0)
        numbers = BySequence(*(torch.tensor([segments[i]]) for i in (0, 1, 0)))
        results.append(loss(policy, reference, Answers(mask, labels, numbers, 2)).loss.item())
    assert results[0] == pytest.approx(results[1], abs=1e-6)


class TestSegments:
    def test_words_replaced_and_added(self):
        """a b c d e f g . against a b c X Y e f g . with h added before the dot is two segments."""
        chosen = [1, 2, 3, 4, 5, 6, 7, 9]
        rejected = [1, 2, 3, 40, 41, 5, 6, 7, 8, 9]
        assert changed_segments(chosen, rejected) == (
            [0, 0, 0, 1, 0, 0, 0, 0],
            [0, 0, 0, 1, 1, 0, 0, 0, 2, 0],
        )

    def test_short_matches_inside_do_not_split_a_segment(self):
        """Two shared tokens between changes are chance; at the ends of the answers even one is shared."""
        assert changed_segments([1, 20, 5, 6, 21, 9], [1, 30, 5, 6, 31, 9]) == (
            [0, 1, 1, 1, 1, 0],
            [0, 1, 1, 1, 1, 0],
        )

    @pytest.mark.parametrize(
        ("chosen", "rejected", "expected"),
        [
            ([1, 2], [1, 2], ([0, 0], [0, 0])),
            ([1, 2], [3], ([1, 1], [1])),
            ([], [1], ([], [1])),
            ([5, 9], [9], ([1, 0], [0])),
        ],
    )
    def test_edges(self, chosen, rejected, expected):
        assert changed_segments(chosen, rejected) == expected
