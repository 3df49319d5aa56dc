"""The reverse SDE by Euler and Maruyama's method, with SiT's choices (Ma et al. 2024, arXiv 2401.08740).

Backwards in time, dx = (v - D s) dt + sqrt(2 D) dW with velocity v and score s = -noise / sigma: every D >= 0 has the
marginals of the probability-flow ODE. D is what SiT's commands call the diffusion, half of the paper's w.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from bench.samplers import TimeOptions, first_x
from bench.samplers.ode import weights

if TYPE_CHECKING:
    from torch import Tensor

    from bench.objectives.process import Process

# Where x holds less data than this, D of `sbdm` is as good as infinite; SiT too starts so much later.
LEAST_ALPHA = 1e-3


@dataclass(frozen=True)
class SDEOptions(TimeOptions):
    """Defaults are those of SiT's commands.

    Attributes:
        diffusion: D: `norm` times sigma, times 1, or times that of the SDE that noises data (score-based diffusion).
        norm: 0 is the ODE.
        last_step: what follows the last drawn noise. mean: the drift of the SDE; euler: that of the ODE; tweedie: the
            predicted x0. none: noise is drawn to the end.
        last_step_size: the time that the last step covers.
    """

    diffusion: Literal["sigma", "constant", "sbdm"] = "sigma"
    norm: float = 1.0
    last_step: Literal["mean", "euler", "tweedie", "none"] = "mean"
    last_step_size: float = 0.04

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.norm <= 100:  # a step multiplies x by 1 - step D / sigma^2, beyond -1 without end
            raise ValueError(f"norm: {self.norm:g}; accepted: 0 to 100")
        if self.last_step_size <= 0:
            raise ValueError(f"last_step_size: {self.last_step_size:g}; accepted: more than 0")
        if self.last_step == "none" and self.last_step_size != SDEOptions.last_step_size:
            raise ValueError(f"last_step_size: {self.last_step_size:g}, but last_step is none: give one of the two")


class _SDE:
    """One network call a step; noise is drawn in every step but the last, and there too if `last_step` is none."""

    options = SDEOptions
    serves = ("continuous",)

    def call_times(self, process: Process, num_steps: int, options: SDEOptions) -> list[float]:
        """The times of the process's grid, stretched so that the last call is at `last_step_size`."""
        first, *others = times = process.grid(num_steps, options.shift)[:-1]
        begin, end = first, times[-1]
        if options.diffusion == "sbdm" and process.alpha(first) < LEAST_ALPHA:
            begin = first - LEAST_ALPHA
        if options.last_step != "none":
            end = options.last_step_size
            if not process.bounds[0] <= end < begin:
                raise ValueError(
                    f"sampler_options.last_step_size: {end:g}; accepted: from {process.bounds[0]:g}, the least time at "
                    f"which the network can be called, to less than {begin:g}"
                )
        stretch = (begin - end) / (first - times[-1])
        return [begin, *(end + (t - times[-1]) * stretch for t in others)]

    def sample(
        self, denoiser: Any, x: Tensor, num_steps: int, draw: Callable[[], Tensor], options: SDEOptions
    ) -> Tensor:
        process = denoiser.process
        times = [*self.call_times(process, num_steps, options), process.grid(num_steps, options.shift)[-1]]
        x = first_x(process, times[0], x)
        for now, then in pairwise(times):
            x0, noise, _ = denoiser(x, now)
            is_last = then == times[-1] and options.last_step != "none"
            if is_last and options.last_step == "tweedie":
                return x0
            end = process.motion(then)
            step = end.clock - process.motion(now).clock  # negative: towards data
            of_x0, of_noise = weights(process, now, step)
            diffusion = _diffusion(process, now, options)
            if not is_last or options.last_step == "mean":
                of_noise += step * diffusion / _of_noise(process, now)  # - D s
            x = of_x0 / end.scale * x0 + of_noise / end.scale * noise
            if not is_last:
                x = x + math.sqrt(2 * diffusion * -step) / end.scale * draw()
        return x


def _of_noise(process: Process, t: float) -> float:
    """The noise in the state, of whose coordinates D is."""
    return process.motion(t).scale * process.sigma(t)


def _diffusion(process: Process, t: float, options: SDEOptions) -> float:
    if options.diffusion == "constant":
        return options.norm
    sigma = _of_noise(process, t)
    if options.diffusion == "sigma":
        return options.norm * sigma
    motion = process.motion(t)
    return options.norm * sigma * (motion.of_noise - sigma * motion.of_x0 / (motion.scale * process.alpha(t)))


SDE = _SDE()
