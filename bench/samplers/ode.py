"""The probability-flow ODE by Euler's and Heun's method, in the coordinates of `Process.motion`.

On discrete steps Euler is DDIM (arXiv 2010.02502); on noise levels Heun is Algorithm 1 of EDM (arXiv 2206.00364).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bench.samplers import TimeOptions, first_x

if TYPE_CHECKING:
    from torch import Tensor

    from bench.objectives.process import Process


def weights(process: Process, t: float, step: float) -> tuple[float, float]:
    """The state at t, moved on by `step` of the clock at its slope there, as weights of x0 and of noise.

    x stands for the x0 and noise that it is made of: where the state is large and data are small, as at the noisy end,
    a difference of x and its noise would leave float32 few digits.
    """
    motion = process.motion(t)
    of_x0 = motion.scale * process.alpha(t) + step * motion.of_x0
    return of_x0, motion.scale * process.sigma(t) + step * motion.of_noise


def euler_step(process: Process, now: float, then: float, x0: Tensor, noise: Tensor) -> Tensor:
    """x at `then`, from what x is made of at `now`."""
    end = process.motion(then)
    of_x0, of_noise = weights(process, now, end.clock - process.motion(now).clock)
    return of_x0 / end.scale * x0 + of_noise / end.scale * noise


class _Euler:
    """One network call a step."""

    options = TimeOptions
    serves = ("discrete", "continuous")

    def call_times(self, process: Process, num_steps: int, options: TimeOptions) -> list[float]:
        return process.grid(num_steps, options.shift)[:-1]

    def sample(
        self, denoiser: Any, x: Tensor, num_steps: int, draw: Callable[[], Tensor], options: TimeOptions
    ) -> Tensor:
        process = denoiser.process
        times = process.grid(num_steps, options.shift)
        x = first_x(process, times[0], x)
        for now, then in pairwise(times):
            x0, noise, _ = denoiser(x, now)
            x = euler_step(process, now, then, x0, noise)
        return x


class _Heun:
    """Two network calls a step, at its ends; the last step is Euler's where the network cannot be called at data."""

    options = TimeOptions
    serves = ("discrete", "continuous")

    def call_times(self, process: Process, num_steps: int, options: TimeOptions) -> list[float]:
        calls = [t for ends in pairwise(process.grid(num_steps, options.shift)) for t in ends]
        return calls if process.called_at_data else calls[:-1]

    def sample(
        self, denoiser: Any, x: Tensor, num_steps: int, draw: Callable[[], Tensor], options: TimeOptions
    ) -> Tensor:
        process = denoiser.process
        times = process.grid(num_steps, options.shift)
        x = first_x(process, times[0], x)
        for now, then in pairwise(times):
            x0, noise, _ = denoiser(x, now)
            x = euler_step(process, now, then, x0, noise)
            if then == times[-1] and not process.called_at_data:
                return x
            end = process.motion(then)
            half = (end.clock - process.motion(now).clock) / 2
            of_x0, of_noise = weights(process, now, half)
            x0_then, noise_then, _ = denoiser(x, then)
            x = of_x0 / end.scale * x0 + of_noise / end.scale * noise
            x = x + half * end.of_x0 / end.scale * x0_then + half * end.of_noise / end.scale * noise_then
        return x


EULER, HEUN = _Euler(), _Heun()
