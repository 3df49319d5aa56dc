"""Samplers: from noise to samples, and what that costs.

A sampler is an object; read `ddpm.py`. One of your own is named in a recipe as `evaluation.sampler: my_file:Name`.
Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from models.parts import NoOptions as NoOptions
from models.parts import Seam

if TYPE_CHECKING:
    from torch import Tensor


# balanced: sample i has class i modulo their number; uniform: random.
Labels = Literal["balanced", "uniform"]


class Sampler(Protocol):
    """What every sampler says and does.

    `options`: a frozen dataclass, the keys of `evaluation.sampler_options`; `serves`: the kinds of processes
    (`Objective.process`) that it samples.
    """

    options: type
    serves: tuple[str, ...]

    def network_calls(self, num_steps: int, options: Any) -> int:
        """Calls of the network for one sample in `num_steps` steps, without guidance."""
        ...

    def sample(self, denoiser: Any, x: Tensor, num_steps: int, draw: Callable[[], Tensor], options: Any) -> Tensor:
        """Samples (N, C, *spatial) from noise x of the same shape. Nothing in here waits for the device.

        denoiser: of the objective (`Objective.denoiser`); draw: fresh standard normal noise like x.
        """
        ...


SAMPLERS = Seam(
    noun="sampler",
    key="evaluation.sampler",
    builtin={"ddpm": "bench.samplers.ddpm:DDPM", "ddim": "bench.samplers.ddim:DDIM"},
    contract=("options", "serves", "network_calls", "sample"),
)


def sampler_id(name: str, options: Mapping[str, Any]) -> str:
    """A sampler and its options as one text, part of every score's key: "ddim", "ddim eta=0.5"."""
    return " ".join([name, *(f"{key}={value}" for key, value in sorted(options.items()))])


def forward_passes(evaluation: Any) -> int:
    """Forward passes of one sample for a recipe's `evaluation`: the sampler's calls, twice as many with guidance.

    The one place that says so: plans, queues and figures of sampling compute ask here.
    """
    sampler = SAMPLERS.find(evaluation.sampler)
    options = sampler.options(**evaluation.sampler_options)
    calls = sampler.network_calls(evaluation.sampling_steps, options)
    return calls * (2 if evaluation.guidance_scale != 1 else 1)
