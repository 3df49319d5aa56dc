"""Contenders: the same training step and the same guided sampling, by the suite and by what people use beside it.

ours        what `ditbench run` and `ditbench sample` do
plain       a plain loop in the manner of the official release, written here from what the papers say
diffusers   diffusers' DiT: its example scripts' training loop, and its DiTPipeline without the autoencoder

ours-mkl    ours where torch multiplies as it does by itself (`bench.cpu.linear`)
ours-glibc  ours where glibc gives freed memory back as it does by itself (`bench.cpu.memory`)

Each is a module with `training(work)` and `sampling(work)`, both of which return an `Entrant`. Data are random latents
in memory, the same for all. Importing this package imports no torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.device import Precision
from bench.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

CONTENDERS = ("ours", "plain", "diffusers")
# Ours without one of the things that make it faster, by the environment of its process.
WITHOUT = {"ours-mkl": {"DITBENCH_ONEDNN": "0"}, "ours-glibc": {"GLIBC_TUNABLES": ""}}
# Who samples by it, the default first. diffusers' pipeline drops a learned variance, which ddpm needs.
SAMPLED_BY = {"ddim": (*CONTENDERS, *WITHOUT), "ddpm": ("ours", "plain", *WITHOUT)}
# The most of our time over an alternative's that is aimed at.
TARGETS = {"train": 1 / 1.25, "sample": 1 / 1.3}
EXAMPLES = 1024  # 16 MiB of latents of 256 pixels


@dataclass(frozen=True)
class Work:
    """What all contenders do alike; the recipe's `evaluation` says how samples are drawn, `batch_size` of them."""

    recipe: Recipe
    device: str
    precision: Precision

    @property
    def arch(self) -> Any:
        return self.recipe.model.architecture()

    @property
    def labels(self) -> list[int]:
        """Of the samples that are drawn."""
        return [index % self.arch.num_classes for index in range(self.recipe.evaluation.batch_size)]


class Entrant(NamedTuple):
    """A contender that is ready: its network, and what is timed, one training step or one batch of samples
    (N, C, H, W), which are returned as the network's range has them.
    """

    network: nn.Module
    call: Callable[[], Tensor | None]


def contender(name: str) -> Any:
    """The module of a contender; importing it imports all that it needs."""
    module = {"diffusers": "by_diffusers", **dict.fromkeys(WITHOUT, "ours")}.get(name, name)
    return importlib.import_module(f"bench.perf.contenders.{module}")


def examples(work: Work, device: torch.device) -> tuple[Tensor, Tensor]:
    """Standard normal x0 (`EXAMPLES`, C, H, W) and labels, on the device."""
    import torch

    random = torch.Generator().manual_seed(0)
    x0 = torch.randn(EXAMPLES, *work.arch.input_shape, generator=random)
    labels = torch.randint(work.arch.num_classes, (EXAMPLES,), generator=random)
    return x0.to(device), labels.to(device)


def device_as_it_comes(work: Work) -> torch.device:
    """The device with the precision that was asked for and nothing else set, as other people's scripts have it."""
    import torch

    torch.set_float32_matmul_precision("high" if work.precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = work.precision == "tf32"
    return torch.device(work.device)
