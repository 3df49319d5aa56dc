"""The learning rate of every step, a function of the step and the recipe: a resumed run has nothing to restore."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.recipe.training import TrainConfig


def learning_rate(step: int, train: TrainConfig) -> float:
    """The rate of step 0, 1, ...

    It rises in equal parts over `warmup_steps`, to the whole rate at the last of them. Then it stays (constant), or
    falls to `final_learning_rate` times the whole rate, which the step after the last would have: along half a cosine
    (Loshchilov & Hutter 2017, arXiv 1608.03983), or over the last `cooldown_steps` as 1 - sqrt(share of them that is
    done), the best of the shapes that Haegele et al. 2024 (arXiv 2405.18392) try.
    """
    if step < train.warmup_steps:
        return train.learning_rate * ((step + 1) / train.warmup_steps)
    if train.schedule == "cosine":
        left = (1 + math.cos(math.pi * (step - train.warmup_steps) / (train.steps - train.warmup_steps))) / 2
    elif train.schedule == "cooldown" and step > train.steps - train.cooldown_steps:
        left = 1 - math.sqrt(1 - (train.steps - step) / train.cooldown_steps)
    else:
        return train.learning_rate
    final = train.final_learning_rate
    return train.learning_rate * (final + (1 - final) * left)
