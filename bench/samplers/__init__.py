"""Samplers: from noise to samples, and what that costs.

A sampler is an object; read `ddpm.py`. One of your own is named in a recipe as `evaluation.sampler: my_file:Name`.
Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
        like x. At the end x is data; at the start it is noise of deviation 1: scale it by sigma of the first time.
        """
        ...


SAMPLERS = Seam(
    noun="sampler",
    key="evaluation.sampler",
    builtin={"ddpm": "bench.samplers.ddpm:DDPM", "ddim": "bench.samplers.ddim:DDIM"},
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
