"""What diffusers' `DiTPipeline` samples as the suite does: IDDPM's noise prediction on linear betas, by DDIM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.objectives.process import linear_betas
from bench.samplers.diffusers_scheduler import RespacedDDIMScheduler

if TYPE_CHECKING:
    from bench.recipe.parts import DiffusionConfig

SAMPLER = "ddim"
# Options of the objective that the scheduler takes over, or that only training or other samplers ask.
EXPORTED = {"timesteps", "variance", "weighting", "min_snr_gamma", "p2_gamma"}


def check_sampled(diffusion: DiffusionConfig) -> None:
    """Refuse what the pipeline would take for something else.

    Raises:
        ValueError: what it is, and what the pipeline samples.
    """
    if diffusion.objective != "iddpm" or not diffusion.non_default().keys() <= EXPORTED:
        raise ValueError(f"{diffusion.id}; DiTPipeline samples iddpm that predicts noise on the linear schedule")


def scheduler(timesteps: int) -> RespacedDDIMScheduler:
    """The suite's process of that many steps and its DDIM, which ends at alpha_bar = 1 and clips nothing."""
    betas = linear_betas(timesteps)
    return RespacedDDIMScheduler(
        num_train_timesteps=timesteps,
        beta_start=betas[0],
        beta_end=betas[-1],
        beta_schedule="linear",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
        timestep_spacing="linspace",
    )
