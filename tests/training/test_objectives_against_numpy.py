"""Every objective of the table against its formula written out in numpy, from logits to the loss of a row."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from objectives_helpers import from_logits

from mfpo.training.objectives import OBJECTIVES, Answers, BySequence, Loss

VOCABULARY, EOS, LONGEST = 7, 2, 5
CHOSEN = [[4, 5, 6, EOS], [3, 3, EOS], [6, 5, 4, 3, EOS]]
REJECTED = [[4, 1, EOS], [3, 5, 5, 1, EOS], [6, EOS]]
CHANGED = [([0, 1, 1, 0], [0, 1, 0]), ([0, 1, 0], [0, 1, 1, 2, 0]), ([1, 1, 2, 0, 0], [1, 2])]
"""Numbers of the changed segments, as if found: the second of the second row is in one answer only."""


@dataclass(frozen=True)
class Model:
    """Logits ``[3, LONGEST, VOCABULARY]`` of three rows given y_w and m, y_l and m, y_w and m'."""

    chosen: np.ndarray
    rejected: np.ndarray
    image_rejected: np.ndarray


def random_model(seed: int) -> Model:
    rng = np.random.default_rng(seed)
    return Model(*(rng.normal(size=(3, LONGEST, VOCABULARY)) for _ in range(3)))


def p(logits: np.ndarray) -> np.ndarray:
    """Softmax over the vocabulary."""
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def log_p(logits: np.ndarray, answer: list[int]) -> np.ndarray:
    """Log-probability of each token of one answer."""
    return np.array([np.log(p(logits[t])[token]) for t, token in enumerate(answer)])


def log_sigma(x: float) -> float:
    return -np.log(1 + np.exp(-x))


class Row:
    """One row under the policy pi and the reference, in the symbols of the papers."""

    def __init__(self, i: int, policy: Model, reference: Model, fixed: Model) -> None:
        self.y_w, self.y_l = CHOSEN[i], REJECTED[i]
        self.c_w, self.c_l = (np.array(numbers) for numbers in CHANGED[i])
        self.pi, self.ref, self.fixed = (
            {n: v[i] for n, v in vars(m).items()} for m in (policy, reference, fixed)
        )
        self.lp_w, self.lp_l = log_p(self.pi["chosen"], self.y_w), log_p(self.pi["rejected"], self.y_l)
        self.r_w = self.lp_w - log_p(self.ref["chosen"], self.y_w)
        self.r_l = self.lp_l - log_p(self.ref["rejected"], self.y_l)
        self.r_v = log_p(self.pi["image_rejected"], self.y_w) - log_p(self.ref["image_rejected"], self.y_w)

    def kl(self, kind: str, answer: list[int], model: dict[str, np.ndarray]) -> float:
        """Sum over an answer's positions of KL(pi_ref || pi)."""
        return sum(
            (p(self.ref[kind][t]) * np.log(p(self.ref[kind][t]) / p(model[kind][t]))).sum()
            for t in range(len(answer))
        )


def dpo(row: Row, beta: float = 0.1) -> float:
    """Rafailov et al., equation 7."""
    return -log_sigma(beta * row.r_w.sum() - beta * row.r_l.sum())


def margin(row: Row) -> float:
    """The paper's equation 7, eta 0."""
    return -log_sigma(0.1 * row.r_w.sum())


def mfpo(row: Row) -> float:
    """The paper's equations 5, 6 and 7."""
    return dpo(row) - log_sigma(0.1 * row.r_w.sum() - 0.1 * row.r_v.sum()) + margin(row)


def simpo(row: Row) -> float:
    """Meng et al., equation 6: beta 2, gamma 1."""
    return -log_sigma(2 / len(row.y_w) * row.lp_w.sum() - 2 / len(row.y_l) * row.lp_l.sum() - 1)


def ha_dpo(row: Row) -> float:
    return dpo(row) + 0.5 * -row.lp_w.mean()


def ddpo(row: Row) -> float:
    """RLHF-V, Yu et al.: gamma 5, beta 0.5."""

    def score(ratios: np.ndarray, changed: np.ndarray) -> float:
        corrected, unchanged = ratios[changed > 0], ratios[changed == 0]
        return (unchanged.sum() + 5 * corrected.sum()) / (len(unchanged) + 5 * len(corrected))

    return -log_sigma(0.5 * score(row.r_w, row.c_w) - 0.5 * score(row.r_l, row.c_l))


def chip(row: Row) -> float:
    """Fu et al., as in their code: lambda 3, kappa 0.1; nothing flows through the divergence on y_w."""

    def score(ratios: np.ndarray, changed: np.ndarray) -> float:
        return ratios.sum() + 3 * ratios[changed > 0].sum()

    s_w, s_l, s_v = score(row.r_w, row.c_w), score(row.r_l, row.c_l), score(row.r_v, row.c_w)
    delta = row.kl("rejected", row.y_l, row.pi) - row.kl("chosen", row.y_w, row.fixed)
    return -log_sigma(0.1 * ((s_w - s_l) + (s_w - s_v) - 0.1 * delta))


def halva(row: Row) -> float:
    """Sarkar et al.: alpha 0.4, phrases that are in both answers."""
    losses = []
    for number in range(1, max(row.c_w.max(), row.c_l.max()) + 1):
        if (row.c_w == number).any() and (row.c_l == number).any():
            correct = np.exp(row.lp_w[row.c_w == number]).prod()
            hallucinated = np.exp(row.lp_l[row.c_l == number]).prod()
            losses.append(-np.log(correct / (correct + hallucinated)))
    return np.mean(losses) + 0.4 * row.kl("chosen", row.y_w, row.pi)


def povid(row: Row) -> float:
    """Zhou et al., as in their code: half and half, y_n what the policy would say of the noised picture."""
    y_n = [int(row.pi["image_rejected"][t].argmax()) for t in range(len(row.y_w))]
    r_n = log_p(row.pi["chosen"], y_n) - log_p(row.ref["chosen"], y_n)
    return 0.5 * dpo(row) - 0.5 * log_sigma(0.1 * row.r_w.sum() - 0.1 * r_n.sum())


def selective_eos(row: Row) -> float:
    """Yue et al.: where the label is not EOS, EOS is not among the words."""
    losses = []
    for t, token in enumerate(row.y_w):
        words = [v for v in range(VOCABULARY) if v != EOS or token == EOS]
        logits = row.pi["chosen"][t]
        losses.append(-np.log(np.exp(logits[token]) / np.exp(logits[words]).sum()))
    return np.mean(losses)


FORMULAS = {
    "dpo": dpo,
    "dpo+margin": lambda row: dpo(row) + margin(row),
    "mfpo": mfpo,
    "mdpo": mfpo,
    "simpo": simpo,
    "ha-dpo": ha_dpo,
    "ddpo": ddpo,
    "chip": chip,
    "halva": halva,
    "povid": povid,
    "selective-eos": selective_eos,
}


def by_formula(name: str, policy: Model, reference: Model, fixed: Model) -> np.ndarray:
    return np.array([FORMULAS[name](Row(i, policy, reference, fixed)) for i in range(3)])


def padded(rows: list[list[int]], value: int) -> torch.Tensor:
    return torch.tensor([row + [value] * (LONGEST - len(row)) for row in rows])


def test_every_objective_has_a_formula():
    assert FORMULAS.keys() == OBJECTIVES.keys()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_gradients(name):
    """Gradients by central differences, of every logit."""
    policy, reference = random_model(0), random_model(1)
    labels = BySequence(padded(CHOSEN, -100), padded(REJECTED, -100), padded(CHOSEN, -100))
    changed = [padded([pair[side] for pair in CHANGED], 0) for side in (0, 1, 0)]
    answers = Answers(labels.map(lambda row: row >= 0), labels, BySequence(*changed), EOS)
    logits, frozen = (
        BySequence(*(torch.tensor(x, requires_grad=model is policy) for x in vars(model).values()))
        for model in (policy, reference)
    )
    objective = OBJECTIVES[name]
    loss = Loss(objective, objective.weights, objective.beta, options=objective.options)
    found = loss(from_logits(labels, logits), from_logits(labels, frozen), answers).loss
    assert found.tolist() == pytest.approx(by_formula(name, policy, reference, policy).tolist(), abs=2e-6)

    found.sum().backward()
    for kind, values in vars(policy).items():
        expected = np.zeros_like(values)
        for place in np.ndindex(values.shape):
            sides = []
            for step in (1e-5, -1e-5):
                moved = values.copy()
                moved[place] += step
                moved_policy = replace(policy, **{kind: moved})
                sides.append(by_formula(name, moved_policy, reference, policy)[place[0]])
            expected[place] = (sides[0] - sides[1]) / 2e-5
        gradient = getattr(logits, kind).grad
        assert gradient is not None or not expected.any()
        if gradient is not None:
            assert np.abs(gradient.numpy() - expected).max() < 2e-6, kind
