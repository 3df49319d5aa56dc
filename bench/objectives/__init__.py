"""Objectives: what a network learns of noised data, and what samplers make of its prediction.

An objective is a class. Read `iddpm.py`; one of your own is named in a recipe as `diffusion.objective: my_file:Name`.
Importing this package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from models.parts import Seam

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Objective:
    """What every objective says and does; a base class for one's own.

    Attributes:
        options: a frozen dataclass, the keys of a recipe's `diffusion` beside `objective`.
        process: the kind of process, which samplers serve: "discrete" (see `bench.objectives.diffusion`), or another.
        columns: names of the losses, `loss` first: the columns of train.jsonl.
    """

    options: ClassVar[type]
    process: ClassVar[str]
    columns: ClassVar[tuple[str, ...]] = ("loss",)

    def __init__(self, options: Any, device: torch.device) -> None: ...

    @classmethod
    def check(cls, options: Any, in_channels: int, out_channels: int) -> None:
        """Refuse options that do not fit together, or a network of `out_channels` for data of `in_channels`.

        Raises:
            ValueError: `diffusion.key: what is wrong`.
        """
        if out_channels != in_channels:
            raise ValueError(f"model: predicts {out_channels} channels; this objective needs {in_channels}")

    @classmethod
    def most_sampling_steps(cls, options: Any) -> int | None:
        """The steps that a sampler can take at most; None: any number."""
        return None

    def draw(self, shape: tuple[int, ...], random: torch.Generator) -> dict[str, Tensor]:
        """Times and noise of a whole batch of x0 of `shape` (B, C, *spatial): tensors of B rows, by name."""
        raise NotImplementedError

    def losses(self, network: nn.Module, x0: Tensor, labels: Tensor, drawn: dict[str, Tensor]) -> dict[str, Tensor]:
        """The losses of `columns`, each (N,), for x0 (N, C, *spatial), labels (N,) and these rows of what was drawn."""
        raise NotImplementedError

    def denoiser(self, network: Any, clip: bool) -> Any:
        """What samplers of this process call. `network`: (x, t (N,)) -> prediction, labels and guidance bound.

        clip: clip the predicted x0 to [-1, 1] (pixels; never latents).
        """
        raise NotImplementedError


OBJECTIVES = Seam(
    noun="objective",
    key="diffusion.objective",
    builtin={"iddpm": "bench.objectives.iddpm:IDDPM"},
    contract=(
        "options",
        "process",
        "columns",
        "check",
        "most_sampling_steps",
        "draw",
        "losses",
        "denoiser",
        "__call__",
    ),
)
