"""Shapes that parts of one's own give, refused where they arise: errors of what comes later would name that.

A network's output is of `out_channels`, a block's of the shape of its tokens, the final layer's of whole patches;
losses are one an image, samples of the shape of the noise.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from bench.errors import InputError
from models.parts import line_of_method


def is_own(name: str, arch: Any) -> bool:
    """Whether a network is of a user's own family, or of blocks of their own."""
    return ":" in name or has_own_blocks(arch)


def has_own_blocks(arch: Any) -> bool:
    return ":" in str(getattr(arch, "block", ""))


def watch(network: Any, arch: Any) -> ExitStack:
    """Until this is closed, a forward pass raises InputError, one line, where a shape is not what it has to be."""
    hooks = ExitStack()

    def check(module: Any, needed: Callable[[Any], tuple[int, ...]]) -> None:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            # Sizes are tensors while a network is traced to be counted.
            wanted = tuple(map(int, needed(inputs[0])))
            shape = tuple(map(int, output.shape)) if hasattr(output, "shape") else type(output).__name__
            if shape != wanted:
                raise InputError(f"{_named(module)} returns {shape}; needed: {wanted}")

        hooks.callback(module.register_forward_hook(hook).remove)

    def check_condition(module: Any, inputs: Any, output: Any) -> None:
        if not (isinstance(output, tuple) and len(output) == 2):
            raise InputError(f"{_named(module)} returns no pair; needed: for blocks, for the final layer")

    if has_own_blocks(arch):
        hooks.callback(network.condition.register_forward_hook(check_condition).remove)
        for block in network.blocks:
            check(block, lambda x: tuple(x.shape))
        check(network.final_layer, lambda x: (*x.shape[:2], arch.patch_size**2 * arch.out_channels))
    check(network, lambda x: (len(x), arch.out_channels, *x.shape[2:]))
    return hooks


def check_losses(objective: Any, losses: Any, images: int) -> None:
    """Of an objective: its columns, each one number an image.

    Raises:
        InputError: they are not.
    """
    where = where_in(objective, "losses")
    if not isinstance(losses, dict) or not set(objective.columns) <= set(losses):
        there = ", ".join(losses) if isinstance(losses, dict) else type(losses).__name__
        raise InputError(f"{where}losses returns {there}; needed: its columns, {', '.join(objective.columns)}")
    if wrong := [name for name in objective.columns if tuple(losses[name].shape) != (images,)]:
        shape = tuple(losses[wrong[0]].shape)
        raise InputError(f"{where}losses: {wrong[0]} is {shape}; needed: {(images,)}, one an image")
    if losses["loss"].grad_fn is None:
        raise InputError(f"{where}losses: loss does not depend on the network")


def check_samples(sampler: Any, x: Any, shape: tuple[int, ...]) -> None:
    """Of a sampler: samples of the shape of the noise.

    Raises:
        InputError: they are not.
    """
    found = tuple(x.shape) if hasattr(x, "shape") else type(x).__name__
    if found != tuple(shape):
        raise InputError(f"{where_in(sampler, 'sample')}sample returns {found}; needed: {tuple(shape)}")


def where_in(part: Any, method: str) -> str:
    """ "my_objective.py, line 16: ", of a method in a user's file; else nothing."""
    line = line_of_method(part, method)
    return f"{line}: " if line else ""


def _named(module: Any) -> str:
    return f"{where_in(module, 'forward')}{type(module).__name__}"
