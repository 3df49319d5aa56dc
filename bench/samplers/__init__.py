"""Samplers: from noise to samples, and what that costs.

A sampler is an object; read `ddpm.py`. One of your own is named in a recipe as `evaluation.sampler: my_file:Name`.
Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from bench.objectives import OBJECTIVES
from models.parts import NoOptions as NoOptions
from models.parts import Seam

if TYPE_CHECKING:
    from torch import Tensor

    from bench.objectives.process import Process


# balanced: sample i has class i modulo their number; uniform: random.
Labels = Literal["balanced", "uniform"]


class Sampler(Protocol):
    """What every sampler says and does.

    `options`: a frozen dataclass, the keys of `evaluation.sampler_options`; `serves`: the kinds of processes
    (`bench.objectives.process`) that it samples.
    """

    options: type
    serves: tuple[str, ...]

    def call_times(self, process: Process, num_steps: int, options: Any) -> list[float]:
        """The process's times at which the network is called for one sample in `num_steps` steps, in order.

        Raises:
            ValueError: `key: what is wrong`, of `evaluation`: steps or options that do not fit the process.
        """
        ...

    def sample(self, denoiser: Any, x: Tensor, num_steps: int, draw: Callable[[], Tensor], options: Any) -> Tensor:
        """Samples (N, C, *spatial) from noise x of the same shape. Nothing in here waits for the device.

        denoiser: of the objective (`Objective.denoiser`), called at `call_times`; draw: fresh standard normal noise
        like x, to be called equally often for every batch. At the end x is data; at the start it is noise of deviation
        1, of which `first_x` makes x at the first time.
        """
        ...


@dataclass(frozen=True)
class TimeOptions:
    """shift: of the times, as `Process.grid` has it."""

    shift: float = 1.0

    def __post_init__(self) -> None:
        if not 1e-3 <= self.shift <= 1e3:
            raise ValueError(f"shift: {self.shift:g}; accepted: 0.001 to 1000")


def first_x(process: Process, t: float, noise: Tensor) -> Tensor:
    """x at the first time t, of noise of deviation 1.

    A chain of discrete steps ends in x of deviation 1 (DDPM Alg. 2, and DDIM). A continuous process ends in noise with
    next to no data, of deviation sigma: 1 on flow paths, sigma_max in EDM (Alg. 1).
    """
    return noise if process.kind == "discrete" else process.sigma(t) * noise


SAMPLERS = Seam(
    noun="sampler",
    key="evaluation.sampler",
    # No dopri5: how often an adaptive solver calls the network depends on the network, so no plan or key could tell.
    builtin={
        "ddpm": "bench.samplers.ddpm:DDPM",
        "ddim": "bench.samplers.ddim:DDIM",
        "euler": "bench.samplers.ode:EULER",
        "heun": "bench.samplers.ode:HEUN",
        "sde": "bench.samplers.sde:SDE",
        "dpm-solver++": "bench.samplers.multistep:DPM_SOLVER",
        "unipc": "bench.samplers.multistep:UNIPC",
    },
    contract=("options", "serves", "call_times", "sample"),
)


def sampler_id(name: str, options: Mapping[str, Any]) -> str:
    """A sampler and its options as one text, part of every score's key: "ddim", "ddim eta=0.5"."""
    return " ".join([name, *(f"{key}={value}" for key, value in sorted(options.items()))])


def call_times(evaluation: Any, diffusion: Any) -> list[float]:
    """The process's times at which one sample calls the network, for a recipe's `evaluation` and `diffusion`.

    Raises:
        ValueError: `key: what is wrong`, of `evaluation`.
    """
    sampler, objective = SAMPLERS.find(evaluation.sampler), OBJECTIVES.find(diffusion.objective)
    options = sampler.options(**evaluation.sampler_options)
    return sampler.call_times(objective.process(diffusion.options), evaluation.sampling_steps, options)


def forward_passes(evaluation: Any, diffusion: Any) -> int:
    """Forward passes of one sample: the sampler's calls, twice as many with guidance.

    The one place that says so: plans, queues and figures of sampling compute ask here.
    """
    calls = len(call_times(evaluation, diffusion))
    return calls * (2 if evaluation.guidance_scale != 1 else 1)
