"""What a training step takes of each device's memory: what it holds exactly, activations as a rough figure.

Beside it a device holds what CUDA and the kernels themselves need, of which nothing is said here.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.averages import RAW, kept_shares
from bench.device import Modes, Precision
from bench.flops import cost_of
from bench.recipe import Recipe

BYTES = 4
# float32 copies of every trained weight beside the averages: itself, its gradient, AdamW's two moments.
COPIES = 4
# Of the blocks whose weights a rank of a sharded run has whole at once: the one that computes, the one that is gathered
# meanwhile, and the gradients of the one before.
BLOCKS_WHOLE = 3
# Bytes for each token and channel that a block of adaLN-Zero keeps for the way back, with an MLP of 4 times its width;
# counted with torch. Other designs and layers keep up to three quarters more, compiled blocks less.
ACTIVATIONS: dict[Precision, float] = {"fp32": 81, "tf32": 81, "bf16": 48}
# What stands before and after the blocks keeps, likewise.
ACTIVATIONS_BESIDE = 13


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on each device.

    `held`: weights, gradients, moments and averages, or shards of them; `whole`: of a sharded run the weights that are
    together at once; `cast`: bf16 copies of weights; `activations`: None for a network without blocks.
    """

    held: float
    whole: float
    cast: float
    activations: float | None

    @property
    def total(self) -> float:
        return self.held + self.whole + self.cast + (self.activations or 0)


def training_memory(recipe: Recipe, ranks: int, modes: Modes, precision: Precision) -> TrainingMemory:
    """Of one run on so many devices, none of whose batches is split further."""
    arch = recipe.model.architecture()
    cost = cost_of(recipe.model.name, arch)
    trained = cost.parameters - cost.fixed_parameters
    copies = COPIES + sum(name != RAW for name in kept_shares(recipe.train))
    held = BYTES * (copies * trained / (ranks if modes.shard else 1) + cost.fixed_parameters)
    whole = BYTES * trained * min(1, BLOCKS_WHOLE / arch.depth) if modes.shard else 0
    # Autocast keeps them to the end of the forward pass; a sharded run does not, but what goes back needs them.
    cast = trained * 2 if precision == "bf16" and not (modes.shard and modes.checkpoint_activations) else 0
    return TrainingMemory(held, whole, cast, _activations(recipe, arch, ranks, modes, precision))


def _activations(recipe: Recipe, arch: object, ranks: int, modes: Modes, precision: Precision) -> float | None:
    from models.registry import family_of

    if not family_of(recipe.model.name).has_blocks:
        return None
    tokens, width, depth = (getattr(arch, name) for name in ("num_tokens", "hidden_size", "depth"))
    each = ACTIVATIONS[precision]
    of_blocks = BYTES * depth + each if modes.checkpoint_activations else each * depth  # inputs, and one block's
    return recipe.train.batch_size / ranks * tokens * width * (of_blocks + ACTIVATIONS_BESIDE)
