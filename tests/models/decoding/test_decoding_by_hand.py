"""The formulas of VCD and OPERA on numbers that one can follow; whole searches are in the other files."""

from __future__ import annotations

import math

import torch

from mfpo.models.decoding.contrast import contrast
from mfpo.models.decoding.opera import largest_column


def test_vcd_divides_squares() -> None:
    """With alpha = 1 a token's weight is p(with the picture) squared over p(with the noised one).

    0.6, 0.3, 0.1 against 0.5, 0.1, 0.4 make 0.72, 0.9, 0.025: the second token wins, which the noise makes
    unlikely. The third has a sixth of the likeliest one's probability, so beta = 0.2 rules it out.
    """
    with_picture, noised = (torch.log(torch.tensor([p])) for p in ([0.6, 0.3, 0.1], [0.5, 0.1, 0.4]))
    found = contrast(with_picture, noised, alpha=1.0, beta=0.1)
    torch.testing.assert_close(found.exp(), torch.tensor([[0.72, 0.9, 0.025]]))
    assert contrast(with_picture, noised, alpha=1.0, beta=0.2)[0, 2] == -math.inf
    assert int(found.argmax()) == 1 and int(with_picture.argmax()) == 0


def test_vcd_without_contrast_keeps_the_logits() -> None:
    logits, noised = torch.tensor([[2.0, 1.0, -3.0]]), torch.tensor([[9.0, -9.0, 0.0]])
    torch.testing.assert_close(contrast(logits, noised, alpha=0.0, beta=0.0), logits)
    # e^-1 is more than a third, e^-5 is less.
    torch.testing.assert_close(
        contrast(logits, noised, alpha=0.0, beta=1 / 3), torch.tensor([[2.0, 1.0, -math.inf]])
    )


def test_opera_multiplies_down_the_columns() -> None:
    """Weights times sigma = 50 below each other: 20 * 20 * 20 = 8,000 in one column, 5 * 5 in the other.

    Times 1e-7 the first one's score is 8e-4. A beam whose columns are equal has the first one as its place.
    """
    scaled = [[[20.0, 20.0, 20.0], [5.0, 5.0]], [[10.0, 10.0], [100.0]]]
    columns = torch.tensor([[math.log(math.prod(column)) for column in beam] for beam in scaled])
    scores, places = largest_column(columns)
    torch.testing.assert_close(scores, torch.tensor([8e-4, 1e-5]), rtol=1e-2, atol=0.0)
    assert places.tolist() == [0, 0]
    _, places = largest_column(columns.flip(1))
    assert places.tolist() == [1, 0]


def test_opera_keeps_its_scores_in_half_precision() -> None:
    """A product of 1e-2 gives 1e-9, too small for it; one of 1e13 gives 1e6, more than its largest number."""
    scores, _ = largest_column(torch.log(torch.tensor([[1e-2], [1e13]])))
    assert scores.tolist() == [0.0, 65504.0]
