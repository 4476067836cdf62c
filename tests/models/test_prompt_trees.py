from __future__ import annotations

import torch

from mfpo.models.packing import Forest, Tree

FOREST = Forest((Tree(3, (2, 1)), Tree(2, (2,))))


def test_positions_start_again_after_each_prompt():
    assert FOREST.depths().tolist() == [0, 1, 2, 3, 4, 3, 0, 1, 2, 3]


def test_every_response_token_is_predicted_by_what_precedes_it():
    assert FOREST.predictors().tolist() == [2, 3, 2, 7, 8]


def test_a_token_sees_its_prompt_and_its_own_response_up_to_itself():
    seen = (FOREST.dense_mask(torch.device("cpu"), torch.float32)[0, 0] == 0).int()
    assert ["".join(map(str, row)) for row in seen.tolist()] == [
        "1000000000",
        "1100000000",
        "1110000000",
        "1111000000",
        "1111100000",
        "1110010000",
        "0000001000",
        "0000001100",
        "0000001110",
        "0000001111",
    ]
    tail = FOREST.tail_mask(0, torch.device("cpu"), torch.float32) == 0
    assert torch.equal(tail.int(), seen[3:6, :6])


def test_flex_attention_gets_the_same_mask():
    from torch.nn.attention.flex_attention import create_mask

    mask = FOREST.block_mask(torch.device("cpu"))
    dense = create_mask(mask.mask_mod, 1, 1, 10, 10, device="cpu")
    assert torch.equal(dense, FOREST.dense_mask(torch.device("cpu"), torch.float32) == 0)
