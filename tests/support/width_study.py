"""A study of widths at several learning rates in two parametrisations, made up, with known best rates."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.results import tables
from analysis.results.run_folders import KNOB_DEFAULTS, OPTIMISATION_TYPES
from analysis.results.tables import Tables

WIDTHS, SEEDS = (16, 32, 64, 128), (0, 1, 2)
RATES = tuple(0.001 * 2.0**k for k in range(7))
STEPS = 100
SP, MUP = "adaln-zero", "adaln-zero parametrization=mup base_width=16"
DRIFT = {SP: -1.0, MUP: 0.0}
BEST = 0.016 * 2**0.25  # of the narrowest, a quarter of the way to the next rate that is run
CURVATURE = 0.02  # of log loss over log rate


def loss_of(design: str, width: int, rate: float) -> float:
    """A parabola of log loss over log rate; wider is better."""
    best = BEST * (width / WIDTHS[0]) ** DRIFT[design]
    return 0.5 * (width / WIDTHS[0]) ** -0.1 * float(np.exp(CURVATURE * np.log(rate / best) ** 2))


@dataclass(frozen=True)
class Record:
    """A run folder that is nowhere, as `collect` reads them."""

    design: str
    width: int
    rate: float
    seed: int
    losses: tuple[float | None, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    is_failed: bool = False

    @property
    def folder(self) -> Path:
        return Path("widths") / self.config["id"]

    @property
    def config(self) -> dict[str, Any]:
        train = {"steps": STEPS, "batch_size": 32, "learning_rate": self.rate, **self.settings}
        recipe = {"model": {"name": "DiT"}, "data": {"name": "digits"}, "train": train, "seed": self.seed}
        name = f"{'mup' if self.design == MUP else 'sp'}{self.width}r{self.rate:g}s{self.seed}"
        return {"id": name, "label": f"W{self.width}", "recipe": recipe, "axes": {"size": f"W{self.width}"}}

    @property
    def model(self) -> dict[str, Any]:
        shape = {"hidden_size": self.width, "num_heads": self.width // 8, "depth": 3, "patch_size": 4, "input_size": 8}
        return {"params": 40 * self.width**2, "gmacs": 1e-7 * self.width**2, "tokens": 4, "block": self.design, **shape}

    @property
    def state(self) -> str:
        return "failed" if self.is_failed else "finished"

    @property
    def finished(self) -> str | None:
        return None if self.is_failed else "2024-01-01T01:00:00Z"

    def lines(self, name: str) -> list[bytes]:
        if name != "train.jsonl" or not self.losses:
            return []
        steps = range(STEPS // len(self.losses), STEPS + 1, STEPS // len(self.losses))
        return [json.dumps({"step": s, "loss": loss}).encode() for s, loss in zip(steps, self.losses, strict=True)]

    def samples(self, name: str, number: int) -> None:
        return None

    def real_images(self, number: int) -> None:
        return None


def records(
    scatter: float = 0.0,
    seeds: tuple[int, ...] = SEEDS,
    widths: tuple[int, ...] = WIDTHS,
    rates: tuple[float, ...] = RATES,
) -> list[Record]:
    """scatter: standard deviation of log loss between runs. The last tenth of the steps counts: one of ten rows."""
    noise = np.random.default_rng(0)
    return [
        Record(design, width, rate, seed, (*[9.0] * 9, loss_of(design, width, rate) * factor))
        for design in (SP, MUP)
        for width in widths
        for rate in rates
        for seed in seeds
        for factor in [float(np.exp(scatter * noise.normal()))]
    ]


def few() -> list[Record]:
    """Of two seeds, two widths and four rates."""
    return records(0.0005, SEEDS[:2], WIDTHS[:2], RATES[2:6])


def tables_of(of: list[Record]) -> Tables:
    """Without the time that `collect` takes: the columns that widths and rates need."""
    named = [{"run": one.config["id"], "label": f"W{one.width}", "seed": one.seed, "block": one.design} for one in of]
    same: dict[str, Any] = {"family": "DiT", "objective": "iddpm", "data": "digits", "steps": STEPS, "batch_size": 32}
    same |= dict.fromkeys(OPTIMISATION_TYPES, 0.0) | KNOB_DEFAULTS
    runs = [
        {
            **same,
            **name,
            **one.model,
            "patch": 4,
            "patch_frames": None,
            **one.config["recipe"]["train"],
            "state": one.state,
        }
        for name, one in zip(named, of, strict=True)
    ]
    train = [
        {
            **name,
            "size": f"W{one.width}",
            "patch": 4,
            "patch_frames": None,
            "gmacs": one.model["gmacs"],
            **json.loads(line),
        }
        for name, one in zip(named, of, strict=True)
        for line in one.lines("train.jsonl")
    ]
    none = pd.DataFrame()
    return Tables(pd.DataFrame(runs), pd.DataFrame(train), none, {}, none)


def study(out: Path, of: list[Record]) -> Tables:
    return tables.collect(of, out)
