"""How many operations a step starts, on which a plan's least times are founded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.parallel import Parallel, Ranks
from bench.recipe import Recipe
from bench.run import build_trainer
from sweeps.expand import load_sweep
from sweeps.planning.speeds import CALL_KERNELS_PER_BLOCK, STEP_KERNELS, STEP_KERNELS_PER_BLOCK

# They give a tensor another shape, or memory, and start no kernel.
NONE = {
    "view", "_unsafe_view", "_reshape_alias", "reshape", "as_strided", "t", "transpose", "permute", "expand", "flatten",
    "unsqueeze", "squeeze", "slice", "select", "split", "split_with_sizes", "chunk", "unbind", "detach", "alias",
    "lift_fresh", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "dropout", "to",
}  # fmt: skip


class Kernels(TorchDispatchMode):
    number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += func.overloadpacket.__name__ not in NONE
        return func(*args, **(kwargs or {}))


def kernels(recipe: Recipe, folder: Path) -> tuple[int, int]:
    """Of a training step, and of a call of the network."""
    parallel = Parallel(torch.device("cpu"), "fp32", Ranks())
    trainer = build_trainer(recipe, recipe.data.load(parallel.device), folder, 1.0, parallel)
    trainer.take_step()
    with Kernels() as step:
        trainer.take_step()
    x, t = torch.zeros(2, *recipe.model.architecture().input_shape), torch.zeros(2, dtype=torch.long)
    with torch.inference_mode(), Kernels() as call:
        trainer.model.eval()(x, t, t)
    return step.number, call.number


@pytest.mark.slow
def test_what_a_step_starts(tmp_path: Path) -> None:
    three, seven = (r for r in load_sweep("digits").recipes if r.label in ("S/4", "XL/4"))
    assert (three.model.architecture().depth, seven.model.architecture().depth) == (3, 7)
    (step, call), (deep_step, deep_call) = kernels(three, tmp_path), kernels(seven, tmp_path)
    assert (deep_step - step) / 4 == pytest.approx(STEP_KERNELS_PER_BLOCK, rel=0.15)
    assert step - 3 * STEP_KERNELS_PER_BLOCK == pytest.approx(STEP_KERNELS, rel=0.15)
    assert (deep_call - call) / 4 == pytest.approx(CALL_KERNELS_PER_BLOCK, rel=0.25)
