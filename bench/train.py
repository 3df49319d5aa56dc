"""Training: recipe in, checkpoints and metrics out; to resume, run the same command again.

No step waits for the device: losses are summed there and fetched once every `log_every` steps. Optimiser and EMA are
one fused call each. All randomness of a step is drawn for the whole global batch from a generator seeded by
(seed, step), so that a data-parallel rank only has to take its slice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

import models
from bench import checkpoint, metrics
from bench.data import Dataset
from bench.device import Precision, autocast
from bench.diffusion import GaussianDiffusion
from bench.errors import RunError
from bench.flops import training_gmacs
from bench.randomness import Stream, generator
from bench.recipe import Recipe
from models.dit import DiT


def build_model(recipe: Recipe, device: torch.device) -> DiT:
    """A freshly initialised model: a function of the recipe's seed alone, whatever the device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(recipe.seed, Stream.INIT, 0).initial_seed())
        return models.create_model(**recipe.model.arguments()).to(device)


class BatchSampler:
    """The global batch of every step, as a function of (seed, step).

    An epoch visits a permutation of the data set seeded by (seed, epoch), and leaves out the remainder that does
    not fill a batch.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, device: torch.device) -> None:
        self._recipe = recipe
        self._dataset = dataset
        self._device = device
        self._epoch = -1
        self._order = torch.empty(0)

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The batch of step 0, 1, ...: x0 (N, C, H, W), t (N,), y (N,) with dropped labels null, noise like x0."""
        recipe, batch_size = self._recipe, self._recipe.train.batch_size
        x0, y = self._dataset.batch(self._indices(step))
        random = generator(recipe.seed, Stream.STEP, step, self._device)
        t = torch.randint(recipe.diffusion.timesteps, (batch_size,), generator=random, device=self._device)
        noise = torch.randn(x0.shape, generator=random, device=self._device)
        dropped = torch.rand(batch_size, generator=random, device=self._device) < recipe.train.label_dropout
        return x0, t, torch.where(dropped, self._dataset.num_classes, y), noise

    def _indices(self, step: int) -> Tensor:
        batch_size = self._recipe.train.batch_size
        epoch, position = divmod(step, len(self._dataset) // batch_size)
        if epoch != self._epoch:
            random = generator(self._recipe.seed, Stream.EPOCH, epoch)
            self._order = torch.randperm(len(self._dataset), generator=random).to(self._device)
            self._epoch = epoch
        return self._order[position * batch_size : (position + 1) * batch_size]


class Trainer:
    """Model, EMA, optimiser and step of one run, and the loop that moves them on."""

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        folder: Path,
        gmacs: float,
        device: torch.device,
        precision: Precision,
        on_log: Callable[[dict[str, Any]], None] = lambda row: None,
    ) -> None:
        """`gmacs` is the model's cost per image; `on_log` is told each row of `train.jsonl`."""
        self.recipe = recipe
        self.folder = folder
        self.step = 0
        self._gmacs = gmacs
        self._device = device
        self._precision: Precision = precision
        self._on_log = on_log
        self._checkpoints = folder / "checkpoints"
        self._log = folder / "train.jsonl"
        self._batches = BatchSampler(recipe, dataset, device)
        self._diffusion = GaussianDiffusion.linear(recipe.diffusion.timesteps, device)
        self.model = build_model(recipe, device).train()
        self._parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self._ema = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._averaged = list(self._ema.values())
        self._current = [p.detach() for p in self._parameters.values()]  # share memory with the parameters
        self._update_ema = get_ema_multi_avg_fn(recipe.train.ema_decay)
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(),
            lr=recipe.train.learning_rate,
            betas=recipe.train.betas,
            weight_decay=recipe.train.weight_decay,
            fused=True,
        )

    def resume(self, at_most: int) -> None:
        """Continue from the newest whole checkpoint up to step `at_most`, if there is one; cut metrics beyond it."""
        found = checkpoint.load_newest_state(self._checkpoints, at_most)
        if found:
            self.step, tensors = found
            self._restore(tensors)
        metrics.cut_after(self._log, self.step)

    def train_until(self, step: int) -> None:
        """Take steps up to and including `step`, saving as the recipe says.

        Raises:
            RunError: the loss or its gradient is not finite, or the disk is full.
        """
        train = self.recipe.train
        kept = set(train.kept_steps())
        self._start_window()
        while self.step < step:
            self._take_step()
            save = self.step in kept or self.step % train.save_every == 0
            if save or self.step % train.log_every == 0:
                self._write_log()
            if save:
                checkpoint.save_state(self._checkpoints, self.step, self._state())
        if self.step in kept and not checkpoint.weights_path(self._checkpoints, self.step).exists():
            checkpoint.save_tensors(
                checkpoint.weights_path(self._checkpoints, self.step), self.ema_state_dict(), {"step": str(self.step)}
            )

    def ema_state_dict(self) -> dict[str, Tensor]:
        """A full state dict with the averaged parameters, loadable by the model."""
        return {**self.model.state_dict(), **self._ema}

    def _take_step(self) -> None:
        x0, t, y, noise = self._batches(self.step)
        with autocast(self._device, self._precision):
            losses = self._diffusion.losses(self.model, x0, t, y, noise)
        means = {name: values.mean() for name, values in losses.items()}
        means["loss"].backward()
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._update_ema(self._averaged, self._current, self.step)
        loss = means["loss"].detach()
        finite = loss.isfinite() & norm.isfinite()
        self._sums += torch.stack([loss, means["mse"].detach(), means["vb"].detach(), norm, finite])
        self.step += 1

    def _start_window(self) -> None:
        self._sums = torch.zeros(5, device=self._device)
        self._window_step = self.step
        self._window_time = time.perf_counter()

    def _write_log(self) -> None:
        """Append the means since the last row; this is where the device is waited for."""
        count = self.step - self._window_step
        loss, mse, vb, norm, finite = (self._sums / count).tolist()
        if finite < 1:
            # Once one is not finite, the weights and all later losses are not either.
            first = self._window_step + round(finite * count) + 1
            raise RunError(
                f"{self.folder}: the loss or its gradient is not finite at step {first}; checkpoints and metrics "
                f"up to step {self._window_step} are kept (train.learning_rate is {self.recipe.train.learning_rate:g})"
            )
        batch_size = self.recipe.train.batch_size
        row = {
            "step": self.step,
            "loss": loss,
            "mse": mse,
            "vb": vb,
            "lr": self.recipe.train.learning_rate,
            "grad_norm": norm,
            "images_per_s": count * batch_size / (time.perf_counter() - self._window_time),
            "gmacs_spent": training_gmacs(self._gmacs, batch_size, self.step),
        }
        metrics.append(self._log, row)
        self._on_log(row)
        self._start_window()

    def _state(self) -> dict[str, Tensor]:
        """Everything the next step depends on, by name; random numbers need none (see `bench.randomness`)."""
        tensors = {}
        for name, parameter in self._parameters.items():
            moments = self._optimizer.state[parameter]
            tensors |= {
                f"model.{name}": parameter,
                f"ema.{name}": self._ema[name],
                f"exp_avg.{name}": moments["exp_avg"],
                f"exp_avg_sq.{name}": moments["exp_avg_sq"],
            }
        return tensors

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(tensors[f"model.{name}"])
                self._ema[name].copy_(tensors[f"ema.{name}"])
                self._optimizer.state[parameter] = {
                    "step": torch.tensor(float(self.step), device=self._device),
                    "exp_avg": tensors[f"exp_avg.{name}"].to(self._device),
                    "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(self._device),
                }
