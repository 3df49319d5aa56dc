"""Samplers: from noise to samples, and what that costs.

A sampler is an object; read `ddpm.py`. One of your own is named in a recipe as `evaluation.sampler: my_file:Name`.
Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

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


class NetworkCalls(NamedTuple):
    """Of one sample: calls by the sampler, and those of them in which guidance needs a second prediction."""

    sampler: int
    guided: int


def is_guided_at(time: float, interval: tuple[float, float] | None) -> bool:
    """Whether guidance is on at a process's time; the interval includes its ends, None is always."""
    return interval is None or interval[0] <= time <= interval[1]


def network_calls(evaluation: Any, diffusion: Any) -> NetworkCalls:
    """How often one sample calls the network, for a recipe's `evaluation` and `diffusion`.

    What that costs is `bench.samplers.guide.forward_passes`.

    Raises:
        ValueError: `key: what is wrong`, of `evaluation`: as `call_times`, or an interval that the process's times do
            not have, or in which nothing would be guided.
    """
    times, interval = call_times(evaluation, diffusion), evaluation.guidance_interval
    guided = sum(is_guided_at(time, interval) for time in times)
    if interval is not None:
        low, high = interval
        first, last = OBJECTIVES.find(diffusion.objective).process(diffusion.options).bounds
        if not first <= low < high <= last:
            raise ValueError(
                f"guidance_interval: {low:g} to {high:g}; accepted: low < high, within the process's times "
                f"{first:g} to {last:g}"
            )
        if not guided:
            raise ValueError(
                f"guidance_interval: {evaluation.sampler} in {evaluation.sampling_steps} steps calls the network at "
                f"no time from {low:g} to {high:g}; accepted: an interval with one of its times at least"
            )
    return NetworkCalls(len(times), guided if evaluation.guidance_scale != 1 else 0)
