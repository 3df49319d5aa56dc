"""Shapes that a network of one's own gives, refused where they arise: errors of what comes later would name that.

The network's output is of `out_channels`, a block's of the shape of its tokens, the final layer's of whole patches.
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


def _named(module: Any) -> str:
    line = line_of_method(module, "forward")
    return f"{line}: {type(module).__name__}" if line else type(module).__name__
