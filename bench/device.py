"""Which device computes, and in which precision. Neither is part of a recipe: both are recorded with every start."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch

from bench.errors import InputError

Precision = Literal["fp32", "tf32", "bf16"]


def prepare_device(device: str, precision: Precision, local_rank: int = 0) -> torch.device:
    """Check that the hardware is there and set matrix precision and determinism for this process.

    A rank takes the GPU of its local rank, or the only one that its launcher lets it see. CUDA runs use deterministic
    algorithms, so that a resumed run equals an uninterrupted one bit for bit.

    Raises:
        InputError: no such device here, or a precision that it lacks.
    """
    if device == "cuda":
        if not torch.cuda.is_available():
            raise InputError("--device cuda: no CUDA device here; accepted: cpu")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        index = local_rank if torch.cuda.device_count() > 1 else 0
        if index >= torch.cuda.device_count():
            raise InputError(f"--device cuda: local rank {local_rank}, but {torch.cuda.device_count()} GPUs here")
        torch.cuda.set_device(index)
    elif precision == "tf32":
        raise InputError("--precision tf32: only on CUDA devices; accepted on cpu: fp32, bf16")
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"  # of convolutions, which have a switch of their own
    return torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else torch.device(device)


@contextmanager
def full_precision() -> Iterator[None]:
    """No TF32 within: decoders and feature networks compute alike whatever the precision of the model."""
    matmul, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolutions


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """bf16 matrix products with fp32 weights and sums, or nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
