"""A plain loop in the manner of the official release: eager, AdamW as it comes, an average in a loop over names.

Written for comparison, from what the papers say; see `plain_network` and `plain_diffusion`.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from bench.objectives.process import alphas_bar, linear_betas
from bench.parallel import autocast
from bench.perf.contenders import Entrant, Work, device_as_it_comes, examples
from bench.perf.contenders.plain_diffusion import PlainDiffusion, sample
from bench.perf.contenders.plain_network import PlainDiT
from bench.randomness import Stream, generator

TIMESTEPS = 1000


def training(work: Work) -> Entrant:
    device, train = device_as_it_comes(work), work.recipe.train
    x0, labels = examples(work, device)
    num_classes = work.arch.num_classes
    network = PlainDiT(work.arch).to(device).train()
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(
        network.parameters(), train.learning_rate, train.betas, weight_decay=train.weight_decay
    )
    diffusion = PlainDiffusion(alphas_bar(linear_betas(TIMESTEPS)), device)
    averaged = dict(average.named_parameters())

    def step() -> None:
        chosen = torch.randint(len(x0), (train.batch_size,), device=device)
        x, y = x0[chosen], labels[chosen]
        y = torch.where(torch.rand(len(y), device=device) < train.label_dropout, num_classes, y)
        t = torch.randint(TIMESTEPS, (len(y),), device=device)
        noise = torch.randn_like(x)
        with autocast(device, work.precision):
            loss = diffusion.losses(network, x, t, y, noise).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                averaged[name].mul_(train.ema_decay).add_(parameter, alpha=1 - train.ema_decay)
        loss.item()  # for the log

    return Entrant(network, step)


def sampling(work: Work) -> Entrant:
    device, evaluation, arch = device_as_it_comes(work), work.recipe.evaluation, work.arch
    network = PlainDiT(arch).to(device).eval()
    diffusion = PlainDiffusion(alphas_bar(linear_betas(TIMESTEPS)), device).respaced(evaluation.sampling_steps)
    labels = torch.tensor(work.labels, device=device)
    sampler, scale = evaluation.sampler, evaluation.guidance_scale

    def call() -> Tensor:
        noise = torch.randn(
            (len(labels), *arch.input_shape),
            generator=generator(work.recipe.seed, Stream.SAMPLE, 0, device),
            device=device,
        )
        with autocast(device, work.precision):
            return sample(diffusion, network, noise, labels, arch.num_classes, scale, sampler)

    return Entrant(network, call)
