"""AdamW as a recipe's `train` asks for it: the rate of each step, clipping, what decays, and steps left out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bench.recipe.training import TrainConfig
from bench.training.learning_rate import learning_rate
from bench.training.modes import copy_, whole


def matrices(model: nn.Module) -> set[str]:
    """Names of the parameters that `decay_matrices_only` lets decay: weights of linear layers and convolutions.

    These are the parameters of two dimensions or more that their module calls `weight` (or `..._weight`, as attention
    does), unless it is an nn.Embedding. Biases, norms, and tables of labels, positions, tokens and shifts are none.
    """
    return {
        f"{path}.{name}".removeprefix(".")
        for path, module in model.named_modules()
        if not isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim >= 2 and name.endswith("weight")
    }


class Optimizer:
    """Fused AdamW over a model's trainable parameters. Nothing in a step waits for the device.

    Attributes:
        parameters: by name.

    A network's `rate_multipliers` (`models.registry.Family`) multiply the rate of single parameters. Weight decay,
    which AdamW multiplies by the rate, is divided by them: a step takes the same share of all that decays.
    """

    def __init__(self, model: nn.Module, train: TrainConfig) -> None:
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._train = train
        decayed = matrices(model) if train.decay_matrices_only else self.parameters.keys()
        multipliers: Mapping[str, float] = getattr(model, "rate_multipliers", {})
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, parameter in self.parameters.items():
            rate = multipliers.get(name, 1.0)
            decay = train.weight_decay / rate if name in decayed else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
        self._adamw = torch.optim.AdamW(
            [{"params": of, "rate": rate, "weight_decay": decay} for (rate, decay), of in groups.items()],
            lr=train.learning_rate,
            betas=train.betas,
            fused=True,
        )
        for p in self.parameters.values():  # as AdamW would at the first step: a state may be saved before it
            zeros = {name: torch.zeros_like(p, memory_format=torch.preserve_format) for name in MOMENTS}
            self._adamw.state[p] = {"step": torch.zeros((), device=p.device), **zeros}

    def gradient_norm(self) -> Tensor:
        """The norm of the whole gradient, before it is clipped."""
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        return whole(torch.nn.utils.get_total_norm(gradients, foreach=True))

    def update(self, step: int, norm: Tensor, left_out: Tensor | None = None) -> None:
        """Move the parameters by the gradient of step 0, 1, ..., whose norm is `norm`, and forget it.

        Where `left_out` (a bool on the device), parameters and moments stay as they are, bit for bit.
        """
        if self._train.clip_grad_norm is not None:
            clipped = self.parameters.values()
            torch.nn.utils.clip_grads_with_norm_(clipped, self._train.clip_grad_norm, norm, foreach=True)
        for group in self._adamw.param_groups:
            group["lr"] = group["rate"] * learning_rate(step, self._train)
        if left_out is not None:
            # What torch.amp.GradScaler tells a fused optimiser, whose kernel then does nothing.
            self._adamw.found_inf = left_out.float()  # pyright: ignore[reportAttributeAccessIssue]
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)

    def moments(self, name: str) -> dict[str, Tensor]:
        """exp_avg and exp_avg_sq of a parameter."""
        state = self._adamw.state[self.parameters[name]]
        return {moment: state[moment] for moment in MOMENTS}

    def restore(self, name: str, moments: dict[str, Tensor], updates: int) -> None:
        """Continue a parameter after so many updates."""
        state = self._adamw.state[self.parameters[name]]
        state["step"].fill_(float(updates))
        for moment in MOMENTS:
            copy_(state[moment], moments[moment])


MOMENTS = ("exp_avg", "exp_avg_sq")
