"""The coordinate check of muP: how large activations are, at several widths, after the first few steps of training.

Yang et al. 2022 (Tensor Programs V, arXiv 2203.03466), Sec. 4 and Appendix D.1: where a width's networks learn as every
other's, the sizes of all activations, and how far training moves them, do not depend on the width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from bench.data import Dataset
from bench.errors import InputError
from bench.flops import cost_of
from bench.objectives import OBJECTIVES
from bench.parallel import Parallel
from bench.recipe import Recipe, parse_recipe
from bench.run import build_trainer
from bench.train import BatchSampler
from models.parametrization import STARTS, Parametrization

# Widths where nobody names any, as numbers of heads.
HEADS = (2, 4, 8, 16)
MOST_STEPS = 100
# Of a network that is trained here, on a CPU: weights, gradients and Adam's averages are 16 GB.
MOST_PARAMETERS = 10**9


def coordinates(
    recipe: Recipe,
    widths: Sequence[int] | None = None,
    steps: int = 4,
    told: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Train a recipe's network for `steps` steps at each width in both parametrisations, and measure its activations.

    Every network sees the same batches and, after each step, the recipe's first batch once more, of which the outputs
    are measured: of the parts of the network, of its blocks, and of their parts, as far as they hold a matrix.

    Args:
        widths: hidden sizes, all of whole heads of the recipe's size; default: of `HEADS`.
        told: of every network, before it is trained.

    Returns:
        Rows of parametrization, width, module ("blocks.*.mlp": the mean over all blocks), step, size (the mean of |x|
        over the outputs) and change (the mean of |x - x at step 0|).

    Raises:
        InputError: a family without parametrisations, widths that are no whole heads or make networks of more than
            `MOST_PARAMETERS`, or too few of them or of steps.
    """
    most = min(MOST_STEPS, recipe.train.steps)
    if not 1 <= steps <= most:
        raise InputError(f"--steps {steps}; accepted: 1 to {most}: the check is of the first few")
    arch = recipe.model.architecture()
    if not hasattr(arch, "parametrization"):
        raise InputError(f"{recipe.model.name}: its family has no parametrization; accepted: transformers, such as DiT")
    head_size = arch.hidden_size // arch.num_heads
    chosen = [head_size * heads for heads in HEADS] if widths is None else sorted(widths)
    for width in chosen:
        if width <= 0 or width % head_size:
            raise InputError(f"--widths: {width}; accepted: multiples of {head_size}, the size of the recipe's heads")
    if len(set(chosen)) < max(2, len(chosen)):
        raise InputError(f"--widths: {', '.join(map(str, chosen))}; accepted: two or more, each once")
    recipes = {
        (parametrization, width): _at_width(recipe, parametrization, width, head_size, arch.base_width or chosen[0])
        for parametrization in get_args(Parametrization)
        for width in chosen
    }
    dataset = recipe.data.load(torch.device("cpu"))
    rows = []
    for (parametrization, width), of_width in recipes.items():
        told(f"{parametrization} {width}")
        of_network = {"parametrization": parametrization, "width": width}
        rows += [{**of_network, **row} for row in _measured(of_width, dataset, steps)]
    return rows


def _at_width(recipe: Recipe, parametrization: str, width: int, head_size: int, base: int) -> Recipe:
    model = recipe.model.model_dump(mode="json")
    model |= {"hidden_size": width, "num_heads": width // head_size, "parametrization": parametrization}
    model["base_width"] = base if parametrization == "mup" else None
    if parametrization == "mup":
        model |= {field.name: field.default for field in fields(recipe.model.options) if field.name in STARTS}
    made = parse_recipe({**recipe.model_dump(mode="json"), "model": model}, f"--widths {width}")
    parameters = cost_of(made.model.name, made.model.architecture()).parameters
    if parameters > MOST_PARAMETERS:
        raise InputError(
            f"--widths: {width}; its network has {parameters:.3g} parameters; accepted: at most {MOST_PARAMETERS:.3g}"
        )
    return made


def _measured(recipe: Recipe, dataset: Dataset, steps: int) -> Iterator[dict[str, Any]]:
    """Rows of step, module, size and change."""
    parallel = Parallel()
    trainer = build_trainer(recipe, dataset, Path(), 0.0, parallel)  # nothing is written until it saves
    objective = OBJECTIVES.find(recipe.diffusion.objective)(recipe.diffusion.options, parallel.device)
    x0, condition, drawn = BatchSampler(objective, dataset, recipe.train, recipe.seed, parallel)(0)
    network, start = trainer.model, {}
    for step in range(steps + 1):
        network.eval()  # no branch is left out
        with torch.no_grad(), _outputs(network) as outputs:
            objective.losses(network, x0, condition, drawn)
        network.train()
        start = start or outputs
        sizes, changes = _means(outputs), _means({name: outputs[name] - start[name] for name in outputs})
        for name, size in sizes.items():
            if not math.isfinite(size):
                arch = recipe.model.architecture()
                raise InputError(
                    f"{arch.parametrization} {arch.hidden_size}: {name} is not finite after {step} steps; accepted: a "
                    f"lower train.learning_rate than {recipe.train.learning_rate:g}"
                )
            yield {"module": name, "step": step, "size": size, "change": changes[name]}
        if step < steps:
            trainer.take_step()


@contextmanager
def _outputs(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Outputs of the modules that are measured, by name, of the forward passes within."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                found[name] = output.detach().float()

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in _parts(network)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _parts(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Children of the network; of lists, their items and the children of these."""
    for name, child in network.named_children():
        inner = [(f"{name}.{key}", item) for key, item in child.named_children()] if _is_list(child) else []
        also = [(f"{path}.{key}", part) for path, item in inner for key, part in item.named_children()]
        for path, part in [(name, child), *inner, *also]:
            if not _is_list(part) and any(p.ndim > 1 and p.requires_grad for p in part.parameters()):
                yield path, part


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList)


def _means(tensors: dict[str, Tensor]) -> dict[str, float]:
    """Of |x|, over all blocks together."""
    groups: dict[str, list[float]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(re.sub(r"\.\d+(?=\.|$)", ".*", name), []).append(tensor.abs().mean().item())
    return {name: sum(values) / len(values) for name, values in groups.items()}
