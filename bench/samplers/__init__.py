"""Samplers: from noise to images. Nothing in these loops waits for the device."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from bench.objectives.diffusion import GaussianDiffusion
from models.dit import DiT

# (x, timesteps (N,)) -> network output (N, 2C, H, W) or (N, C, H, W); labels and guidance are bound by the caller.
Network = Callable[[Tensor, Tensor], Tensor]


def sample_ddpm(
    network: Network, diffusion: GaussianDiffusion, x: Tensor, draw: Callable[[], Tensor], clip: bool
) -> Tensor:
    """Ancestral sampling (DDPM Alg. 2) with the learned variance.

    Args:
        network: predicts noise and variance.
        diffusion: the respaced process; one network call a step.
        x: initial noise (N, C, H, W).
        draw: fresh standard normal noise like x, called once a step except the last.
        clip: clip the predicted x_0 to [-1, 1] (pixel space; never for latents).
    """
    for step in reversed(range(diffusion.num_steps)):
        output = network(x, diffusion.timesteps[step].expand(len(x)))
        x0, _ = _predictions(output, diffusion, x, step, clip)
        mean = diffusion.posterior_mean_x0[step] * x0 + diffusion.posterior_mean_xt[step] * x
        if step == 0:
            return mean
        x = mean + (0.5 * _log_variance(output, diffusion, x, step)).exp() * draw()
    raise AssertionError("a process has at least two steps")


def sample_ddim(network: Network, diffusion: GaussianDiffusion, x: Tensor, clip: bool) -> Tensor:
    """Deterministic DDIM (Song et al. 2020, arXiv 2010.02502, Eq. 12 with sigma = 0). Arguments as `sample_ddpm`."""
    for step in reversed(range(diffusion.num_steps)):
        output = network(x, diffusion.timesteps[step].expand(len(x)))
        x0, noise = _predictions(output, diffusion, x, step, clip)
        previous = diffusion.alphas_bar_previous[step]
        x = previous.sqrt() * x0 + (1 - previous).sqrt() * noise
    return x


def _predictions(
    output: Tensor, diffusion: GaussianDiffusion, x: Tensor, step: int, clip: bool
) -> tuple[Tensor, Tensor]:
    """Predicted x_0 and noise; after clipping x_0 the noise is the one that leads from x to it."""
    noise = output[:, : x.shape[1]]
    x0 = diffusion.x0_from_xt[step] * x - diffusion.x0_from_noise[step] * noise
    if clip:
        x0 = x0.clamp(-1, 1)
        noise = (diffusion.x0_from_xt[step] * x - x0) / diffusion.x0_from_noise[step]
    return x0, noise


def _log_variance(output: Tensor, diffusion: GaussianDiffusion, x: Tensor, step: int) -> Tensor:
    """The learned log variance; a network without one samples with the larger fixed choice, beta."""
    if output.shape[1] == x.shape[1]:
        return diffusion.log_betas[step]
    fraction = (output[:, x.shape[1] :] + 1) / 2
    return fraction * diffusion.log_betas[step] + (1 - fraction) * diffusion.posterior_log_variance[step]


def guided(model: DiT, y: Tensor, guidance_scale: float, guidance_channels: int | None) -> Network:
    """Bind labels y (N,) and guidance to a model; scale 1 is no guidance and costs one forward pass, not two."""
    if guidance_scale == 1.0:
        return lambda x, t: model(x, t, y).float()
    return lambda x, t: model.forward_with_cfg(
        x, t, y, guidance_scale, channels=guidance_channels, batch_doubled=False
    ).float()
