"""The rate of each step against rates written out, and against torch's own schedules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recipes import recipe
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from bench.errors import InputError
from bench.recipe.training import TrainConfig
from bench.training.learning_rate import learning_rate


def rates(**train: Any) -> list[float]:
    config = TrainConfig(**train)
    return [learning_rate(step, config) for step in range(config.steps)]


def test_a_constant_rate_is_exactly_that() -> None:
    assert rates(steps=5, learning_rate=3e-4) == [3e-4] * 5


def test_warm_up_rises_in_equal_parts_to_the_whole_rate() -> None:
    found = rates(steps=6, learning_rate=1.0, warmup_steps=4)
    assert found == [0.25, 0.5, 0.75, 1, 1, 1]


def test_cosine() -> None:
    """0, 30, 45, 60, 90, 120 and 150 degrees of it, by the roots that their cosines are."""
    found = rates(steps=12, learning_rate=2.0, schedule="cosine")
    root2, root3 = 2**0.5, 3**0.5
    expected = {0: 2, 2: 1 + root3 / 2, 3: 1 + root2 / 2, 4: 1.5, 6: 1, 8: 0.5, 10: 1 - root3 / 2}
    assert {step: found[step] for step in expected} == pytest.approx(expected, rel=1e-12)


def test_cosine_after_warm_up_is_what_torch_makes_of_it() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    warmup = LinearLR(optimizer, start_factor=1 / 5, end_factor=1.0, total_iters=4)
    cosine = CosineAnnealingLR(optimizer, T_max=15, eta_min=0.03)
    both = SequentialLR(optimizer, [warmup, cosine], milestones=[5])
    expected = []
    for _ in range(20):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        both.step()
    found = rates(steps=20, learning_rate=0.3, warmup_steps=5, schedule="cosine", final_learning_rate=0.1)
    assert found == pytest.approx(expected, rel=1e-6)


def test_cooldown_is_one_minus_the_root_of_what_is_done() -> None:
    found = rates(steps=12, learning_rate=1.0, warmup_steps=2, schedule="cooldown", cooldown_steps=4)
    falling = [1, 1 - 0.25**0.5, 1 - 0.5**0.5, 1 - 0.75**0.5]
    assert found == pytest.approx([0.5, *[1] * 7, *falling], rel=1e-12)
    held = rates(steps=4, learning_rate=1.0, schedule="cooldown", cooldown_steps=4, final_learning_rate=0.2)
    assert held == pytest.approx([0.2 + 0.8 * share for share in falling], rel=1e-12)


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"schedule": "linear"}, ["train.schedule: ", "'constant', 'cosine' or 'cooldown'", "'linear'"]),
        ({"warmup_steps": 13}, ["train.warmup_steps: 13", "steps (12)"]),
        ({"warmup_steps": -1}, ["train.warmup_steps: ", "greater than or equal to 0", "-1"]),
        ({"warmup_steps": 1.5}, ["train.warmup_steps: ", "integer", "1.5"]),
        ({"warmup_steps": 12, "schedule": "cosine"}, ["train.warmup_steps: 12 of 12", "cosine"]),
        ({"warmup_steps": 5, "schedule": "cooldown", "cooldown_steps": 8}, ["train.warmup_steps: 5", "8", "(12)"]),
        ({"cooldown_steps": 4}, ["train.cooldown_steps: 4", "schedule is constant", "cooldown"]),
        ({"cooldown_steps": 4, "schedule": "cosine"}, ["train.cooldown_steps: 4", "schedule is cosine"]),
        ({"schedule": "cooldown"}, ["train.cooldown_steps: missing"]),
        ({"final_learning_rate": 0.1}, ["train.final_learning_rate: 0.1", "schedule is constant", "cosine, cooldown"]),
        (
            {"final_learning_rate": 1.5, "schedule": "cosine"},
            ["train.final_learning_rate: ", "equal to 1"],
        ),
        ({"clip_grad_norm": 0}, ["train.clip_grad_norm: ", "greater than 0"]),
        ({"clip_grad_norm": "1"}, ["train.clip_grad_norm: ", "number"]),
        ({"decay_matrices_only": True}, ["train.decay_matrices_only: true", "weight_decay is 0"]),
        ({"decay_matrices_only": 1, "weight_decay": 0.1}, ["train.decay_matrices_only: ", "boolean", "got 1"]),
        ({"non_finite": "rollback"}, ["train.non_finite: ", "'stop', 'skip' or 'roll-back'", "'rollback'"]),
    ],
)
def test_what_does_not_fit_is_refused_with_its_key(train: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        recipe({f"train.{key}": value for key, value in train.items()})
    assert "\n" not in str(caught.value)
    for text in said:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    "train",
    [
        {"warmup_steps": 12},
        {"warmup_steps": 4, "schedule": "cooldown", "cooldown_steps": 8},
        {"schedule": "cooldown", "cooldown_steps": 12},
        {"warmup_steps": 11, "schedule": "cosine"},
        {"schedule": "cosine", "final_learning_rate": 1},
    ],
)
def test_what_just_fits_is_accepted(train: dict[str, Any]) -> None:
    steps = recipe({f"train.{key}": value for key, value in train.items()}).train
    assert all(0 < learning_rate(step, steps) <= steps.learning_rate for step in range(steps.steps))
