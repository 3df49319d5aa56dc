"""DDIM in diffusers on the suite's own steps.

A copy of this file is part of every exported model (see `models/diffusers_transformer.py`), so it imports diffusers
and torch, and nothing of the suite.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler, DDIMSchedulerOutput
from torch import Tensor


class RespacedDDIMScheduler(DDIMScheduler):
    """Deterministic DDIM on steps spread evenly over the whole process, both ends included (IDDPM Sec. 4).

    diffusers' own scheduler can visit these steps (spacing `linspace`), but goes from each to the one that is
    num_train_timesteps // num_inference_steps before it, not to the next one that it visits.
    """

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Choose the steps, latest first.

        Raises:
            ValueError: fewer than 2 steps, or more than the process has.
        """
        count = self.config["num_train_timesteps"]
        if not 2 <= num_inference_steps <= count:
            raise ValueError(f"num_inference_steps: {num_inference_steps} is not in 2 .. {count}")
        steps = torch.linspace(0, count - 1, num_inference_steps, dtype=torch.float64).round().long()
        self.num_inference_steps = num_inference_steps
        self.timesteps = steps.flip(0).to(device)
        alphas_bar = torch.cumprod(1 - self.betas.double(), 0)[steps].tolist()
        # step -> alpha_bar there, and at the step that follows in sampling
        self._alphas_bar = dict(zip(steps.tolist(), zip(alphas_bar, [1.0, *alphas_bar[:-1]], strict=True), strict=True))

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        generator: Any = None,
        variance_noise: Any = None,
        return_dict: bool = True,
    ) -> Any:
        """One step of Eq. 12 of arXiv 2010.02502 with sigma = 0: x_t and the predicted noise, (N, C, H, W), to x_s.

        Nothing is clipped and no noise is added, so the arguments for these have no effect.

        Raises:
            ValueError: an eta other than 0.
        """
        if eta:
            raise ValueError(f"eta: {eta}; this scheduler is deterministic, 0 is accepted")
        now, following = self._alphas_bar[int(timestep)]
        x0 = now**-0.5 * sample - (1 / now - 1) ** 0.5 * model_output
        x = following**0.5 * x0 + (1 - following) ** 0.5 * model_output
        return DDIMSchedulerOutput(x, x0) if return_dict else (x, x0)
