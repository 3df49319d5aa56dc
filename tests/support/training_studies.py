"""Studies whose scores follow a known law of models and training."""

from __future__ import annotations

import numpy as np

from analysis.laws.compute import COMPUTE
from analysis.laws.forms import FORMS
from analysis.laws.observations import Observations

SUM = (2.0, 60.0, 3e5, 0.5, 0.2, 0.7)  # E, A, B, alpha, gamma, beta
PRODUCT = (4e5, 0.3, 0.1, 0.5)  # A, alpha, gamma, beta
# label -> GMACs, tokens
MODELS = {
    f"{size}/{patch}": (gmacs, 1024 / patch**2)
    for size, row in {"S": (0.4, 1.4, 6.0), "B": (1.5, 5.5, 23.0), "L": (5.0, 20.0, 80.0)}.items()
    for patch, gmacs in zip((8, 4, 2), row, strict=True)
}
BATCH = 256
STEPS = tuple(range(50_000, 400_001, 50_000))


def study(form: str = "sum", parameters=SUM, noise: float = 0.0, seeds: int = 1, steps=STEPS) -> Observations:
    """Every model at every step, times exp(noise), as `collect` would have it."""
    cells = [(model, seed, step) for model in MODELS for seed in range(seeds) for step in steps]
    variables = {
        "compute": np.array([MODELS[model][0] for model, _, _ in cells]),
        "tokens": np.array([MODELS[model][1] for model, _, _ in cells]),
        "images": np.array([float(BATCH * step) for _, _, step in cells]),
    }
    score = FORMS[form](parameters, variables) * np.exp(noise * np.random.default_rng(0).standard_normal(len(cells)))
    return Observations(
        "fid",
        score,
        variables,
        tuple(model for model, _, _ in cells),
        tuple(f"{model} seed {seed} step {step}" for model, seed, step in cells),
        tuple(str(seed) for _, seed, _ in cells),
        COMPUTE["forward"],
    )


def curves_study(slopes: dict[str, float], steps=STEPS, noise: float = 0.0, seeds: int = 1) -> Observations:
    """Each model's score is its own power of the images seen, 100 at the first step."""
    rows = study(steps=steps, seeds=seeds)
    images = rows.variables["images"] / (BATCH * steps[0])
    powers = np.array([slopes[model] for model in rows.models])
    score = 100 * images**-powers * np.exp(noise * np.random.default_rng(0).standard_normal(len(rows)))
    return Observations("fid", score, rows.variables, rows.models, rows.names, rows.seeds, rows.compute)


def truth(model: str, steps: int, form: str = "sum", parameters=SUM) -> float:
    """The law's score."""
    gmacs, tokens = MODELS[model]
    return float(FORMS[form](parameters, {"compute": gmacs, "tokens": tokens, "images": BATCH * steps})[0])


def budget_of(model: str, steps: float) -> float:
    """PF-days of training: GMACs x 3 x images x 2e9 FLOPs."""
    return MODELS[model][0] * 6e9 * BATCH * steps / 8.64e19
