"""What the knobs of an update do to parameters: clipping, the schedule, and which of them decay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from recipes import tiny
from torch import nn
from trainings import trainer_of

import models
from bench.files import jsonl
from bench.recipe.training import TrainConfig
from bench.training.optimizer import Optimizer, matrices


class Weights(nn.Module):
    """Two tensors, whose gradients are set by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[3.0, -1.0]]))
        self.bias = nn.Parameter(torch.tensor([2.0]))


def updated(train: dict[str, Any], gradients: list[tuple[list[list[float]], list[float]]]) -> dict[str, torch.Tensor]:
    """Parameters and moments after these gradients of weight and bias."""
    model = Weights()
    optimizer = Optimizer(model, TrainConfig(steps=10, **train))
    for step, (weight, bias) in enumerate(gradients):
        model.weight.grad, model.bias.grad = torch.tensor(weight), torch.tensor(bias)
        optimizer.update(step, optimizer.gradient_norm())
    moments = {f"{moment}.{name}": t for name in ("weight", "bias") for moment, t in optimizer.moments(name).items()}
    return {"weight": model.weight.detach(), "bias": model.bias.detach(), **moments}


def test_a_gradient_beyond_the_limit_is_scaled_to_it() -> None:
    """Of the whole gradient: (3, 0) and 4 have the norm 5. The first moment is a tenth of the gradient after that."""
    after = updated({"clip_grad_norm": 1.0}, [([[3.0, 0.0]], [4.0])])
    assert after["exp_avg.weight"].tolist() == [pytest.approx([0.06, 0], rel=1e-5)]
    assert after["exp_avg.bias"].tolist() == pytest.approx([0.08], rel=1e-5)
    assert torch.cat([after["exp_avg.weight"][0], after["exp_avg.bias"]]).norm().item() == pytest.approx(0.1, rel=1e-5)


def test_a_gradient_within_the_limit_is_left_as_it_is() -> None:
    gradient = [([[3.0, 0.0]], [4.0])]
    after, plain = updated({"clip_grad_norm": 5.01}, gradient), updated({}, gradient)
    assert all(torch.equal(after[name], plain[name]) for name in plain)


def test_each_step_has_its_rate() -> None:
    """Of equal gradients, Adam's step is the rate whatever their size."""
    gradients = [([[0.5, 0.5]], [0.0])] * 4
    train: dict[str, Any] = {"learning_rate": 0.4, "warmup_steps": 4}
    moved = [3.0 - updated(train, gradients[: k + 1])["weight"][0, 0].item() for k in range(4)]
    assert moved == pytest.approx([0.1, 0.3, 0.6, 1.0], rel=1e-4)


@pytest.mark.parametrize("only", [False, True])
def test_what_decays_shows_where_the_gradient_is_zero(only: bool) -> None:
    train: dict[str, Any] = {"learning_rate": 0.1, "weight_decay": 0.5, "decay_matrices_only": only}
    after = updated(train, [([[0.0, 0.0]], [0.0])] * 2)
    assert after["weight"].tolist() == [pytest.approx([3 * 0.95**2, -(0.95**2)])]
    assert after["bias"].tolist() == pytest.approx([2.0 if only else 2 * 0.95**2])


@pytest.mark.parametrize("block", ["adaln-zero", "adaln", "adaln-single", "cross-attention", "in-context"])
def test_matrices_of_a_dit_are_the_weights_of_its_linear_layers_and_its_patches(block: str) -> None:
    model = models.create_model(**tiny(model={"block": block}).model.arguments())
    named = {name: module for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))}
    assert matrices(model) == {f"{name}.weight" for name in named}
    others = {name for name, p in model.named_parameters() if p.requires_grad} - matrices(model)
    assert "y_embedder.embedding_table.weight" in others
    assert all(name.endswith("bias") or "table" in name or "norm" in name for name in others)


def test_weights_of_attention_and_convolutions_are_matrices_and_norms_and_tables_are_not() -> None:
    model = nn.ModuleDict(
        {
            "attention": nn.MultiheadAttention(8, 2),
            "norm": nn.GroupNorm(2, 8),
            "table": nn.Embedding(3, 8),
            "conv": nn.Conv1d(8, 8, 3),
        }
    )
    assert matrices(model) == {"attention.in_proj_weight", "attention.out_proj.weight", "conv.weight"}


def test_a_log_says_the_rate_the_unclipped_norm_and_the_share_of_clipped_steps(tmp_path: Path) -> None:
    def rows(name: str, until: int, **train: Any) -> list[dict[str, Any]]:
        (tmp_path / name).mkdir()
        trainer_of(tiny(train={"checkpoint_steps": [], **train}), tmp_path / name).train_until(until)
        return jsonl.read(tmp_path / name / "train.jsonl")

    warm: dict[str, Any] = {"schedule": "cosine", "warmup_steps": 4}
    plain = rows("plain", 1, log_every=1, **warm)
    limit = 0.9 * plain[0]["grad_norm"]
    every = rows("every", 8, log_every=1, clip_grad_norm=limit, **warm)
    assert every[0]["grad_norm"] == plain[0]["grad_norm"]
    assert [row["clipped"] for row in every] == [float(row["grad_norm"] > limit) for row in every]
    assert every[0]["clipped"] == 1
    assert [every[k]["lr"] for k in (0, 3, 4, 6)] == pytest.approx(
        [2.5e-4, 1e-3, 1e-3, 1e-3 * (2 + 2**0.5) / 4], rel=1e-9
    )
    window = rows("window", 4, log_every=4, save_every=100, clip_grad_norm=limit, **warm)
    assert window[0]["clipped"] == sum(row["clipped"] for row in every[:4]) / 4
    assert window[0]["lr"] == 1e-3
    assert "clipped" not in plain[0]
