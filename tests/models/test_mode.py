from __future__ import annotations

import pytest
from torch import nn

from mfpo.models.mode import evaluating


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_comes_back_after_an_error_too(training: bool) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train(training)

    def fail() -> None:
        with evaluating(model):
            assert not any(module.training for module in model.modules())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert all(module.training == training for module in model.modules())
