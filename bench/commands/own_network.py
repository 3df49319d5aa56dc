"""Networks that belong to no family, for `ditbench flops`: any `nn.Module`, or what makes one, by its dotted path."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from itertools import product
from typing import Any

from bench.commands.variants import Given, Variant, check_known, flag, typed_value
from bench.counting.trace import Beside
from bench.errors import InputError
from bench.flops import count_network
from models.parts import Seam
from models.registry import FAMILIES

# Arguments of a forward pass that get timesteps or labels though they may be left out: as they are often called.
TIMESTEPS_OR_LABELS = ("t", "time", "times", "timestep", "timesteps", "sigma", "y", "label", "labels", "class_labels")
MOST_INPUTS = 3


def is_network(path: str) -> bool:
    """Whether a dotted path is of a network or of what makes one, not of a family.

    Raises:
        InputError: it is neither, cannot be imported, or must not be (`--no-own-parts`).
    """
    if "/" in path:
        return False  # a family's preset
    part = _part(path)
    is_family = all(hasattr(part, attribute) for attribute in FAMILIES.contract)
    if not is_family and not callable(part):
        raise InputError(
            f"{path}: of type {type(part).__name__}; accepted: a model family, a network, or a class or function that "
            "makes one"
        )
    return not is_family


def read_shape(text: str) -> tuple[int, ...]:
    """`4,32,32` -> (4, 32, 32).

    Raises:
        InputError: something else.
    """
    sizes = text.split(",")
    if not all(size.strip().isdecimal() and int(size) for size in sizes):
        raise InputError(f"--input-shape {text}: accepted: whole numbers above 0, channels first, such as 4,32,32")
    return tuple(map(int, sizes))


def of_network(path: str, shape: tuple[int, ...], given: Given) -> Variant:
    """A network of one's own, called with x, timesteps and labels, or with less where it takes less.

    Args:
        path: of an `nn.Module`, or of what makes one: `module:factory`.
        shape: (C, *spatial) of x.
        given: arguments of the factory.

    Raises:
        InputError: in one line: what `count_network` refuses, or arguments that the factory does not have or misses.
    """
    import torch

    part = _part(path)
    is_made = isinstance(part, torch.nn.Module)
    arguments = {} if is_made else _arguments(path, part, given)
    if is_made:
        check_known(given, [], f"{path} is made already")

    def build() -> torch.nn.Module:
        network = part if is_made else part(**arguments)
        if not isinstance(network, torch.nn.Module):
            raise InputError(f"{path}: what it makes is of type {type(network).__name__}, not an nn.Module")
        network.register_forward_hook(lambda module, inputs, output: _tensors(output))
        return network

    names: list[str] = []

    def calls(network: Any) -> list[Beside]:
        taken, needed = _inputs(path, network)
        names[:] = taken
        return _dtypes(len(taken) - 1, needed - 1)

    found = count_network(path, build, shape, calls)
    called = f"forward({', '.join(names[: 1 + len(found.others)])})"
    return Variant(path, found.cost, lambda: found.tally, called=called)


def _part(path: str) -> Any:
    try:
        return Seam("model", "NAME", builtin={}, contract=()).find(path)
    except ValueError as error:
        raise InputError(str(error)) from None


def _arguments(path: str, factory: Any, given: Given) -> dict[str, Any]:
    """Keyword arguments of a factory, as a recipe's YAML would have their values."""
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):  # of some that are written in C
        parameters = []
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        check_known(given, [p.name for p in named], f"{path} has no such argument")
    missing = [flag(p.name) for p in named if p.default is p.empty and p.name not in given]
    if missing:
        raise InputError(f"{path}: give {', '.join(missing)}, which it needs")
    return {name: typed_value(name, text) for name, text in given.items()}


def _inputs(path: str, network: Any) -> tuple[list[str], int]:
    """Names of what a network's forward pass is likely to take, x first, and how many of them it cannot do without."""
    parameters = inspect.signature(network.forward).parameters.values()
    taken = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = sum(p.default is p.empty for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    if not 1 <= needed <= min(len(taken), MOST_INPUTS):
        given = ", ".join(p.name for p in parameters)
        raise InputError(
            f"{path}: its forward pass takes ({given}); accepted: x, or x and timesteps, or x, timesteps and labels; "
            "wrap it in a module that takes those"
        )
    likely = needed
    while likely < min(len(taken), MOST_INPUTS) and taken[likely].name in TIMESTEPS_OR_LABELS:
        likely += 1
    return [p.name for p in taken[:likely]], needed


def _dtypes(likely: int, needed: int) -> list[Beside]:
    """Of timesteps and labels, all whole numbers first; all that is likely to be taken before what is needed."""
    return [dtypes for n in dict.fromkeys((likely, needed)) for dtypes in product(("int64", "float32"), repeat=n)]


def _tensors(output: Any) -> Any:
    """A network's output without the mapping around it, which cannot be traced."""
    import torch

    if isinstance(output, Mapping):
        return tuple(value for value in output.values() if isinstance(value, torch.Tensor))
    return output
