"""What plans take a model to cost: the closed form, equal to what fvcore counts to the last multiply-accumulate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench import flops
from models import BLOCKS, designs
from models.dit import FAMILY
from models.registry import Count, configure

SMALL: dict[str, Any] = {
    "depth": 3, "hidden_size": 24, "num_heads": 2, "patch_size": 2, "input_size": 8, "frequency_embedding_size": 32,
}  # fmt: skip


def counted(name: str, **options: Any) -> Count:
    """Operator by operator; the fixed table is (tokens, width)."""
    cost, arch = flops.count(name, **options), configure(name, **options)
    return Count(cost.by_module[""], cost.num_parameters, arch.num_tokens * arch.hidden_size)


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("DiT-S/2", "DiT-XL/8") else pytest.param(name, marks=pytest.mark.slow)
        for name in FAMILY.presets
    ],
)
def test_the_12_models_equal_the_count(name: str) -> None:
    assert FAMILY.count(configure(name)) == flops.cost_of(name, configure(name)) == counted(name)


@pytest.mark.parametrize(
    "options",
    [{}, {"mlp_ratio": 2.5}, {"learn_sigma": False, "in_channels": 3}, {"input_size": 6, "patch_size": 1, "depth": 1}],
)
@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_design_equals_the_count(block: str, options: dict[str, Any]) -> None:
    options = {**SMALL, "block": block, **options}
    assert FAMILY.count(configure("DiT", **options)) == counted("DiT", **options)


# One's own designs, as a recipe would name them in this very file.
UNSTATED = replace(designs.CROSS_ATTENTION, cost=None)


@pytest.mark.parametrize("options", [{}, {"learn_sigma": False, "num_classes": 3}])
def test_a_design_that_states_no_cost_is_counted_to_the_same(options: dict[str, Any]) -> None:
    own, shipped = (
        configure("DiT", **SMALL, block=block, **options) for block in ("test_cost:UNSTATED", "cross-attention")
    )
    assert FAMILY.count(own) is None
    assert flops.cost_of("DiT", own) == FAMILY.count(shipped) == counted("DiT", **SMALL, **options, block=own.block)
