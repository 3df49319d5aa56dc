"""How a training step is carried out (`bench.device.Modes`): compiled blocks, activations computed again, shards.

What is compiled or computed again is a block's `forward`: the names of its parameters stay, and hooks on the block,
such as those that gather its shards, stay outside.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn

from bench.device import Modes
from bench.errors import InputError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

Forward = Callable[..., Tensor]


def carried_out(model: nn.Module, modes: Modes, device: torch.device) -> nn.Module:
    """The network, whose blocks are from now on carried out so.

    Raises:
        InputError: torch.compile does not work here.
    """
    blocks: Any = getattr(model, "blocks", ())
    if modes.compile_blocks:
        _prepare_compiler(device, len(blocks))
    for block in blocks:
        if modes.compile_blocks:
            block.forward = _compiled(block)
        if modes.checkpoint_activations:
            block.forward = _checkpointed(block.forward)
    if modes.shard:
        _shard(model, blocks, device)
    return model


def _prepare_compiler(device: torch.device, blocks: int) -> None:
    """Make sure that it works, and of more than one kind of block: blocks may differ in a number (a rate, a window)."""
    import torch._dynamo.config

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 2 * blocks)
    try:
        torch.compile(torch.sin)(torch.zeros(2, device=device))
    except Exception as error:  # of Triton, of the C++ compiler, or of what looks for it
        raise InputError(
            f"compile_blocks: torch.compile does not work here ({_reason(error)}); accepted: false, or a C++ compiler "
            f"(CXX){' and Triton' if device.type == 'cuda' else ''} that works"
        ) from None


def _compiled(block: nn.Module) -> Forward:
    from torch._dynamo.exc import TorchDynamoException

    # Of one shape, as batches are; `fullgraph`: what cannot be compiled is an error, not slow.
    forward = torch.compile(block.forward, dynamic=False, fullgraph=True)

    def run(*args: Any) -> Tensor:
        try:
            return forward(*args)
        except TorchDynamoException as error:
            name = type(block).__name__
            raise InputError(f"compile_blocks: {name} cannot be compiled ({_reason(error)}); accepted: false") from None

    return run


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _checkpointed(forward: Forward) -> Forward:
    from torch.utils.checkpoint import checkpoint

    def run(*args: Any) -> Tensor:
        # With torch's own random state, which a block of one's own may draw from. Autocast is as it was, too.
        return checkpoint(forward, *args, use_reentrant=False)

    return run


def _shard(model: nn.Module, blocks: Any, device: torch.device) -> None:
    """Divide every block's trainable parameters, and those beside the blocks, among all ranks, by their first axis.

    What is fixed (tables of positions) every rank has whole.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    fixed = {parameter for parameter in model.parameters() if not parameter.requires_grad}
    for module in (*blocks, model):
        fully_shard(module, mesh=mesh, ignored_params=fixed)


def _is_sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    shards = sys.modules.get("torch.distributed.tensor")  # loads for a second or more, and only where it is needed
    return shards is not None and isinstance(tensor, shards.DTensor)


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor: all of it, or its shard; it shares its memory."""
    return tensor.to_local() if _is_sharded(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, also where ranks hold shards of it. All ranks must call it."""
    return tensor.full_tensor() if _is_sharded(tensor) else tensor


def copy_(target: Tensor, values: Tensor) -> None:
    """Copy the values of a whole tensor, which every rank has, to one of which this rank may hold a shard."""
    if _is_sharded(target):
        from torch.distributed.tensor import distribute_tensor

        values = distribute_tensor(
            values.to(target.device), target.device_mesh, target.placements, src_data_rank=None
        )  # nothing is sent
    target.copy_(values)
