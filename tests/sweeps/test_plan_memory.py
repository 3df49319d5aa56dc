"""What a plan says of memory and time where steps are carried out otherwise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recipes import recipe
from scaling_plans import one, only, planned, profile
from torch import Tensor

from bench.device import PLAIN, Modes
from bench.flops import cost_of
from bench.run import build_model
from sweeps.planning.memory import training_memory
from sweeps.planning.report import as_json, print_explanation, print_plan

GB = 1e9
SIZES: dict[str, Any] = {
    **{"model.depth": 6, "model.hidden_size": 128, "model.num_heads": 4, "model.patch_size": 1},
    **{"train.batch_size": 10},
}
AGAIN, SHARDED = Modes(checkpoint_activations=True), Modes(shard=True)


def kept_bytes(changes: dict[str, Any], bf16: bool) -> int:
    """What a forward pass of the whole batch keeps for the way back, beside the weights, by torch's own account."""
    model = build_model(recipe(changes), torch.device("cpu")).train()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    shapes = {p.shape for p in model.parameters()} | {p.T.shape for p in model.parameters() if p.ndim == 2}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.shape not in shapes:  # of the weights in bf16
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        model(torch.randn(10, 1, 8, 8), torch.rand(10), torch.zeros(10, dtype=torch.long))
    return sum(tensor.untyped_storage().nbytes() for at, tensor in kept.items() if at not in weights)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activations_are_what_torch_keeps(precision: Any) -> None:
    planned_bytes = training_memory(recipe(SIZES), 1, PLAIN, precision).activations
    assert planned_bytes == pytest.approx(kept_bytes(SIZES, precision == "bf16"), rel=0.05)
    layers = {"model.qk_norm": True, "model.norm": "rms", "model.mlp": "swiglu", "model.positions": "both"}
    other = kept_bytes({**SIZES, **layers}, precision == "bf16")
    assert planned_bytes and 1 < other / planned_bytes < 1.75


def test_what_a_device_holds() -> None:
    xl2 = only("XL/2").recipes[0]
    cost = cost_of(xl2.model.name, xl2.model.architecture())
    trained, fixed = cost.parameters - cost.fixed_parameters, cost.fixed_parameters
    alone = training_memory(xl2, 8, PLAIN, "tf32")
    assert alone.held == 4 * (5 * trained + fixed)  # weights, gradients, two moments, one average
    assert (alone.whole, alone.cast) == (0, 0)
    shards = training_memory(xl2, 8, SHARDED, "tf32")
    assert shards.held == 4 * (5 * trained / 8 + fixed)
    assert shards.whole == pytest.approx(4 * trained * 3 / 28)
    assert shards.activations == alone.activations
    again = training_memory(xl2, 8, AGAIN, "bf16")
    assert again.cast == 2 * trained
    assert training_memory(xl2, 8, Modes(checkpoint_activations=True, shard=True), "bf16").cast == 0
    # Of 28 blocks their inputs, and all that one keeps.
    assert again.activations == pytest.approx(256 / 8 * 256 * 1152 * (28 * 4 + 48 + 13))


def test_a_plan_prints_memory_where_there_are_gpus_or_modes(capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(planned(only("S/8", "XL/2"), profile()))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Memory of a GPU in training")]
    assert "at most that of XL/2" in line
    both = planned(only("XL/2"), profile(shard=True, checkpoint_activations=True))
    print_plan(both)
    assert "(checkpoint_activations, shard)" in capsys.readouterr().out
    print_explanation(both)
    assert "memory of a GPU in training: " in capsys.readouterr().out
    document = as_json(both)
    assert (document["compile_blocks"], document["shard"]) == (False, True)
    assert document["runs"][0]["training_memory_bytes"] == both.runs[0].memory.total


def test_activations_that_are_computed_again_cost_a_forward_pass() -> None:
    plain, again = one("XL/2", profile()), one("XL/2", profile(checkpoint_activations=True))
    assert plain.step_s and again.step_s == pytest.approx(4 / 3 * plain.step_s)
    assert again.sampling == plain.sampling
    assert again.memory.total < 0.5 * plain.memory.total
