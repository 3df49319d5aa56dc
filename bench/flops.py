"""Exact multiply-accumulate counts with fvcore, by the convention of the DiT paper.

The paper's "Gflops" are GMACs: multiply-accumulates of one forward pass of one image, in units of 1e9, counted for
every linear map and attention product (QK^T and AV), plus one per output element of the blocks' LayerNorms (not of the
final layer's). With that rule all published rows agree to the last printed digit, save DiT-B/4: we count 5.566 and
the paper prints 5.56, which is our count truncated, where every other row is rounded. Two conventions differ from
fvcore's own: fused attention, which fvcore skips without a word, is counted, and LayerNorm counts 1 per element,
not 4 or 5. So do RMSNorm, GroupNorm, and the norms of queries and keys, none of which the paper's networks have; to
rotate these by their positions is elementwise, and counts nothing. The U-Nets of the paper's Table 6 come to what it
prints by the same rule (docs/systems.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from bench import shapes
from bench.counting.conventions import PAPER, Tally
from bench.counting.trace import TIMESTEPS_AND_LABELS, Beside, tally_of
from bench.errors import InputError
from models.parts import said
from models.registry import Count, caption_shape_of, configure, family_of

# Forward and backward cost three forward passes (paper, Fig. 9).
TRAINING_FACTOR = 3


@dataclass(frozen=True)
class Cost:
    """One model, counted operator by operator. `gmacs` per image and forward pass; `by_module`: module -> MACs."""

    name: str
    num_tokens: int
    num_parameters: int
    gmacs: float
    by_module: Mapping[str, int]

    @property
    def gflops(self) -> float:
        """True floating-point operations, 2 per multiply-accumulate, in 1e9."""
        return 2 * self.gmacs


@dataclass(frozen=True)
class Counted:
    """A network that was counted: its cost, what each module computes, what it was called with beside x."""

    cost: Count
    tally: Tally
    others: Beside

    @property
    def by_module(self) -> dict[str, int]:
        """Module -> multiply-accumulates; "" is the whole."""
        return PAPER.by_module(self.tally)


def training_gmacs(gmacs: float, batch_size: int, steps: int) -> float:
    """Training compute in GMACs: gmacs x 3 x batch x steps (paper, Fig. 9)."""
    return gmacs * TRAINING_FACTOR * batch_size * steps


def cost_of(name: str, arch: Any) -> Count:
    """MACs and parameters of a configuration: in closed form where its parts state one, else counted.

    The one way by which plans, queues and tables learn what a model costs. Without torch, if all parts state it.

    Raises:
        InputError: a part computes with an operator that nothing counts, or fails.
    """
    return family_of(name).count(arch) or counted(name, arch).cost


def forward_gmacs(model: Any) -> float:
    """Multiply-accumulates of one forward pass of one image in 1e9, of a recipe's `model`."""
    return cost_of(model.name, model.architecture()).macs / 1e9


def count(name: str, **options: Any) -> Cost:
    """Count a model operator by operator.

    Arguments as for `models.create_model`. The label dropout and the loss are not part of a forward pass.

    Raises:
        ValueError: see `models.create_model`.
        InputError: see `cost_of`.
    """
    arch = configure(name, **options)
    found = counted(name, arch)
    return Cost(name, arch.num_tokens, found.cost.parameters, found.cost.macs / 1e9, found.by_module)


@cache
def counted(name: str, arch: Any) -> Counted:
    """A configuration's network, counted operator by operator; errors as `cost_of`."""
    operators = getattr(getattr(arch, "design", None), "operators", {})

    captions = caption_shape_of(arch)

    def calls(network: Any) -> list[Beside]:
        return [TIMESTEPS_AND_LABELS if captions is None else ("int64", captions)]

    def build() -> Any:
        network = family_of(name).build(arch)
        if shapes.is_own(name, arch):
            shapes.watch(network, arch)
        return network

    return count_network(name, build, arch.input_shape, calls, operators)


def count_network(
    what: str,
    build: Callable[[], Any],
    shape: tuple[int, ...],
    calls: Callable[[Any], Sequence[Beside]],
    operators: Mapping[str, Any] | None = None,
) -> Counted:
    """Count what `build` makes: on the meta device, where nothing is allocated or initialised, if that can be.

    Args:
        what: names it in messages.
        shape: (C, *spatial) of x.
        calls: of the network, with what it may be called beside x: the first that works is.
        operators: as for `tally_of`.

    Raises:
        InputError: it cannot be built, fails with all of the calls, or uses an operator that nothing counts.
    """
    import torch

    problems = {}
    for device in ("meta", "cpu"):  # what looks at numbers raises on the meta device
        try:
            with torch.device(device):
                network = build().eval()
        except InputError:
            raise
        except Exception as error:  # whatever a user's code does
            problems[device] = f"it cannot be built ({said(error)})"
            continue
        for others in calls(network):
            try:
                tally = tally_of(network, (1, *shape), operators, others)
            except InputError as error:
                raise InputError(f"{what}: {error}") from None
            except Exception as error:
                problems.setdefault(device, f"its forward pass fails ({said(error)})")
            else:
                parameters = list(network.parameters())
                fixed = sum(p.numel() for p in parameters if not p.requires_grad)
                return Counted(Count(PAPER.of(tally[""]), sum(p.numel() for p in parameters), fixed), tally, others)
    raise InputError(f"{what}: {problems['cpu']}, for x of shape {(1, *shape)}")


def count_macs(
    model: Any,
    shape: tuple[int, ...],
    operators: Mapping[str, Any] | None = None,
    others: Beside = TIMESTEPS_AND_LABELS,
) -> dict[str, int]:
    """MACs of one forward pass of a network, by module name ("" is the whole), for x of `shape`.

    Arguments and errors as for `bench.counting.trace.tally_of`.
    """
    return PAPER.by_module(tally_of(model, shape, operators, others))
