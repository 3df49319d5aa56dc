"""Linear maps on CPUs by oneDNN, where what torch calls by itself leaves half of the processor unused.

torch multiplies float32 matrices by MKL, which on AMD's processors uses no AVX-512; oneDNN, which comes with torch too,
does. torch hands it a product where reduced precision is allowed, which processors with AMX then use and others
lack. So this is done on processors without AMX alone, and only if a product is exact in float32 all the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

VARIABLE = "DITBENCH_ONEDNN"
CPU_FACTS = Path("/proc/cpuinfo")
# Multiply-accumulates of a map from which on it is faster, with what a function of our own costs autograd (some 40 us).
LEAST_MACS = 2**22


def by_onednn(network: nn.Module) -> nn.Module:
    """The same network, whose large `nn.Linear` on the CPU multiply by oneDNN if that `pays`: float32, up to rounding.

    Parameters, their names and hooks stay as they are.
    """
    if pays():
        for module in network.modules():
            if type(module) is nn.Linear:  # what derives from it may multiply otherwise
                module.__class__ = _Linear
    return network


@cache
def pays() -> bool:
    """Whether this processor is one of AMD's with AVX-512 and without AMX, and oneDNN is there; no with
    DITBENCH_ONEDNN=0.
    """
    if os.environ.get(VARIABLE) == "0" or not (torch.backends.mkl.is_available() and torch.backends.mkldnn.enabled):
        return False
    try:
        facts = CPU_FACTS.read_text(encoding="utf-8").split()
    except OSError:
        return False
    is_served = "AuthenticAMD" in facts and "avx512f" in facts and not any(fact.startswith("amx") for fact in facts)
    return is_served and _is_exact()


@contextmanager
def products_by_onednn() -> Iterator[None]:
    """Within, products of float32 matrices on the CPU are oneDNN's; only where that `pays` are they exact."""
    products: Any = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue] - documented
    before, products.fp32_precision = products.fp32_precision, "bf16"
    try:
        yield
    finally:
        products.fp32_precision = before


class _Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        is_float = input.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        is_large = input.numel() * self.out_features >= LEAST_MACS
        # What torch.compile makes of a product cannot ask for oneDNN.
        if input.device.type == "cpu" and is_float and is_large and not torch.compiler.is_compiling():
            return _Product.apply(input, self.weight, self.bias)
        return super().forward(input)


class _Product(torch.autograd.Function):
    """`F.linear` with its three products by oneDNN."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        with products_by_onednn():
            return F.linear(input, weight, bias)

    @staticmethod
    @once_differentiable  # which hides its parameters' names
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        input, weight = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad
        rows, inputs = gradient.reshape(-1, gradient.shape[-1]), input.reshape(-1, input.shape[-1])
        with products_by_onednn():
            return (
                (rows @ weight).view(input.shape) if of_input else None,
                rows.t() @ inputs if of_weight else None,
                rows.sum(0) if of_bias else None,
            )


def _is_exact() -> bool:
    """Whether 1 + 2^-20, which neither bfloat16 nor TF32 can hold, is still there after a product with 1."""
    with products_by_onednn():
        held = torch.full((64, 64), 1 + 2**-20)  # smaller ones are not handed to oneDNN
        return bool((held @ torch.eye(64)).eq(held).all())
