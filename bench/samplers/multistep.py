"""DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095) and UniPC (Zhao et al. 2023, arXiv 2302.04867), by diffusers.

Both extrapolate x0 from earlier steps, over the logarithm of alpha / sigma. Scaling x changes nothing in that, so
every process is sampled in coordinates in which alpha^2 + sigma^2 = 1, those of diffusers, on its own times.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bench.samplers import TimeOptions, first_x

if TYPE_CHECKING:
    from torch import Tensor

    from bench.objectives.process import Process

# Of pure noise the logarithm is infinite. The further off it is, the less the first step's x0 is extrapolated from.
LEAST_ALPHA = 1e-9


@dataclass(frozen=True)
class MultistepOptions(TimeOptions):
    """order: how many predictions of x0 a step uses; first and last steps use fewer."""

    order: Literal[1, 2, 3] = 2


@dataclass(frozen=True)
class _Multistep:
    """One network call a step. Results have float32's precision: diffusers computes a step in that."""

    scheduler: Callable[[int], Any]
    options: type = MultistepOptions
    serves: tuple[str, ...] = ("discrete", "continuous")

    def call_times(self, process: Process, num_steps: int, options: MultistepOptions) -> list[float]:
        if num_steps < options.order:
            raise ValueError(
                f"sampling_steps: {num_steps} is less than sampler_options.order ({options.order}); accepted: at "
                "least as many"
            )
        return process.grid(num_steps, options.shift)[:-1]

    def sample(
        self, denoiser: Any, x: Tensor, num_steps: int, draw: Callable[[], Tensor], options: MultistepOptions
    ) -> Tensor:
        import torch

        from bench.parallel import full_precision

        process = denoiser.process
        times = process.grid(num_steps, options.shift)
        scheduler = self.scheduler(options.order)
        scheduler.set_timesteps(num_steps)
        scheduler.set_begin_index(0)  # else it looks the time up, and waits for the device
        levels = [(process.alpha(t), process.sigma(t)) for t in times]
        ratios = [sigma / max(alpha, LEAST_ALPHA) for alpha, sigma in levels]
        scheduler.sigmas = torch.tensor(ratios, dtype=x.dtype)
        x = first_x(process, times[0], x)
        for index, t in enumerate(times[:-1]):
            now, then = math.hypot(*levels[index]), math.hypot(*levels[index + 1])
            x0 = denoiser(x, t).x0
            # UniPC's sums are matrix products, which the network's precision would make bf16 or TF32.
            with full_precision(), torch.autocast(x.device.type, enabled=False):
                (x,) = scheduler.step(x0, index, x / now, return_dict=False)
            x = then * x
        return x


def _dpm_solver(order: int) -> Any:
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(solver_order=order, prediction_type="sample", algorithm_type="dpmsolver++")


def _unipc(order: int) -> Any:
    """On a GPU every step waits for it: diffusers solves for the step's weights there."""
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    return UniPCMultistepScheduler(solver_order=order, prediction_type="sample")


DPM_SOLVER, UNIPC = _Multistep(_dpm_solver), _Multistep(_unipc)
