"""diffusers' DiT, trained the way its example scripts are written, and sampled by its DiTPipeline.

Its blocks each have their own copy of the embedders of timesteps and labels, which ours shares: so many more parameters
it has, and nothing else is larger.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.pipelines.dit.pipeline_dit import DiTPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from bench.parallel import autocast
from bench.perf.contenders import Entrant, Work, device_as_it_comes, examples
from bench.randomness import Stream, generator
from bench.samplers.dit_pipeline import scheduler
from models.diffusers_weights import built_by_diffusers

MOST_GRADIENT = 1.0  # its scripts clip the gradient's norm at it


def training(work: Work) -> Entrant:
    """The network learns the noise alone: its scripts leave out the half of the prediction that is a variance."""
    device, train = device_as_it_comes(work), work.recipe.train
    x0, labels = examples(work, device)
    network: Any = built_by_diffusers(work.arch)
    network = network.to(device).train()  # drops labels by itself
    average = EMAModel(network.parameters(), decay=train.ema_decay)
    optimizer = torch.optim.AdamW(
        network.parameters(), train.learning_rate, train.betas, weight_decay=train.weight_decay
    )
    noising = DDPMScheduler()

    def step() -> None:
        chosen = torch.randint(len(x0), (train.batch_size,), device=device)
        latents = x0[chosen]
        noise = torch.randn_like(latents)
        timesteps: Any = torch.randint(len(noising), (len(latents),), device=device)
        noised: Any = noising.add_noise(latents, noise, timesteps)
        with autocast(device, work.precision):
            predicted = network(noised, timestep=timesteps, class_labels=labels[chosen]).sample.chunk(2, dim=1)[0]
        loss = F.mse_loss(predicted.float(), noise.float(), reduction="mean")
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), MOST_GRADIENT)
        optimizer.step()
        optimizer.zero_grad()
        average.step(network.parameters())
        loss.detach().item()  # for the log

    return Entrant(network, step)


class _Undecoded:
    """In the place of the autoencoder: keeps the latents that it is asked to decode."""

    config = SimpleNamespace(scaling_factor=1.0)

    def decode(self, latents: Tensor) -> SimpleNamespace:
        self.latents = latents
        return SimpleNamespace(sample=latents)


def sampling(work: Work) -> Entrant:
    """By DDIM on the suite's steps, as an exported pipeline has it: diffusers' own DDIM would visit others."""
    device, evaluation = device_as_it_comes(work), work.recipe.evaluation
    network: Any = built_by_diffusers(work.arch)
    network, undecoded = network.to(device).eval(), _Undecoded()
    build: Any = DiTPipeline
    pipeline = build(network, undecoded, scheduler(work.recipe.diffusion.options.timesteps))
    pipeline.set_progress_bar_config(disable=True)

    def call() -> Tensor:
        random = generator(work.recipe.seed, Stream.SAMPLE, 0, device)
        with autocast(device, work.precision):
            pipeline(
                class_labels=work.labels,
                guidance_scale=evaluation.guidance_scale,
                generator=random,
                num_inference_steps=evaluation.sampling_steps,
                output_type="pt",
            )
        return undecoded.latents

    return Entrant(network, call)
