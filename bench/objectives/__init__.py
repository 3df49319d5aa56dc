"""Objectives: what a network learns of noised data, and what samplers make of its prediction.

An objective is a class. Read `edm.py`, the shortest; one of your own is named in a recipe as
`diffusion.objective: my_file:Name`. Importing this package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from models.parts import Seam

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from bench.objectives.process import Process
    from models.conditions import Condition


class Objective:
    """What every objective says and does; a base class for one's own.

    Attributes:
        options: a frozen dataclass, the keys of a recipe's `diffusion` beside `objective`.
        columns: names of the losses, `loss` first: the columns of train.jsonl.
    """

    options: ClassVar[type]
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
    def process(cls, options: Any) -> Process:
        """How data are noised: what samplers, guidance intervals and plans ask, without torch."""
        raise NotImplementedError

    def draw(self, shape: tuple[int, ...], random: torch.Generator) -> dict[str, Tensor]:
        """Times and noise of a whole batch of x0 of `shape` (B, C, *spatial): tensors of B rows, by name."""
        raise NotImplementedError

    def losses(
        self, network: nn.Module, x0: Tensor, condition: Condition, drawn: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The losses of `columns`, each (N,), for x0 (N, C, *spatial) and these rows of what was drawn.

        `condition`: labels (N,) or captions, which the network is called with as they are.
        """
        raise NotImplementedError

    def denoiser(self, network: Any, clip: bool) -> Any:
        """What samplers call: `denoiser(x (N, C, *spatial), t) -> Denoised`, with its `process`.

        network: see `bench.objectives.denoiser.Network`; condition and guidance are bound.
        clip: clip the predicted x0 to [-1, 1] (pixels; never latents).
        """
        raise NotImplementedError


OBJECTIVES = Seam(
    noun="objective",
    key="diffusion.objective",
    builtin={
        "iddpm": "bench.objectives.iddpm:IDDPM",
        "flow": "bench.objectives.flow:Flow",
        "edm": "bench.objectives.edm:EDM",
    },
    contract=(
        "options",
        "columns",
        "check",
        "process",
        "draw",
        "losses",
        "denoiser",
        "__call__",
    ),
)


def check_first_channels(name: str, in_channels: int, out_channels: int) -> None:
    """For objectives that use the first of a network's channels; what others would be a variance is not trained.

    Raises:
        ValueError: neither as many as the data have, nor twice as many.
    """
    if out_channels not in (in_channels, 2 * in_channels):
        raise ValueError(
            f"model: predicts {out_channels} channels; {name} needs {in_channels}, or twice as many and leaves half"
        )


def check_used(options: Any, key: str, switch: str, value: str) -> None:
    """Refuse an option that is given where the one that it belongs to, `switch`, is not `value`.

    Raises:
        ValueError: `diffusion.key: what is wrong`.
    """
    given = getattr(options, key)
    if given != getattr(type(options), key) and getattr(options, switch) != value:
        raise ValueError(
            f"diffusion.{key}: {given:g}, but diffusion.{switch} is {getattr(options, switch)}, not {value}"
        )
