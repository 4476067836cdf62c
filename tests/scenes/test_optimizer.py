from __future__ import annotations

import pytest
import torch
from torch import nn

from mfpo.scenes.optimizer import Optimizer


def test_parts_side_by_side_are_the_batch_in_one() -> None:
    torch.manual_seed(0)
    inputs, targets = torch.randn(8, 4), torch.randn(8, 1)

    def trained(parts: list[slice]) -> list[torch.Tensor]:
        torch.manual_seed(1)
        net = nn.Sequential()
        net.layers = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
        before = torch.get_num_threads()
        with Optimizer([net], 1e-2, 5) as optimizer:
            for _ in range(5):
                optimizer.step(lambda rows: (net(inputs[rows]) - targets[rows]).square().sum(), parts)
        assert torch.get_num_threads() == before
        return [parameter.detach() for parameter in net.parameters()]

    one, two = trained([slice(0, 8)]), trained([slice(0, 4), slice(4, 8)])
    for a, b in zip(one, two, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_threads_are_as_before_after_an_error() -> None:
    before = torch.get_num_threads()
    net = nn.Sequential()
    net.layers = nn.Linear(2, 2)

    def fails(part: int) -> torch.Tensor:
        raise RuntimeError("no loss")

    with pytest.raises(RuntimeError, match="no loss"), Optimizer([net], 1e-2, 5) as optimizer:
        optimizer.step(fails, [0, 1])
    assert torch.get_num_threads() == before
