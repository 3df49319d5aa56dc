"""The closed forms that plans are made with equal what fvcore counts, to the last multiply-accumulate."""

from __future__ import annotations

from typing import Any

import pytest
from bench.closed_form import forward_gmacs, num_parameters

from bench import flops
from models import list_models
from models.registry import BLOCKS, architecture

SMALL: dict[str, Any] = {
    "depth": 3, "hidden_size": 24, "num_heads": 2, "patch_size": 2, "input_size": 8, "frequency_embedding_size": 32,
}  # fmt: skip


@pytest.mark.parametrize("name", list_models())
def test_the_12_models_equal_the_count(name: str) -> None:
    counted, arch = flops.count(name), architecture(name)
    assert (round(1e9 * forward_gmacs(arch)), num_parameters(arch)) == (counted.by_module[""], counted.num_parameters)


@pytest.mark.parametrize("options", [{}, {"mlp_ratio": 2.5}, {"learn_sigma": False, "in_channels": 3}])
@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_design_equals_the_count(block: str, options: dict[str, Any]) -> None:
    counted = flops.count("DiT", block, **SMALL, **options)
    arch = architecture("DiT", block, **SMALL, **options)
    assert (round(1e9 * forward_gmacs(arch)), num_parameters(arch)) == (counted.by_module[""], counted.num_parameters)
