"""A study of several model families, made up so that the compute between their scores is known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from run_folders import STEPS, collect, evaluation, gmacs_of, write_lines, write_run

from analysis.results.tables import Tables

ALPHA = 0.25
LABELS = ("S/2", "B/2", "L/2")
# Name -> (GMACs over the DiT's of the same size, as how many times its compute it is).
FAMILIES: dict[str, tuple[float, float]] = {"DiT": (1.0, 1.0), "JiT": (1.1, 1.0), "U-ViT": (1.3, 2.0)}
BLOCKS = {"DiT": "adaln-zero", "JiT": "adaln-zero", "U-ViT": ""}


def write_families(
    folder: Path,
    families: Mapping[str, tuple[float, float]] = FAMILIES,
    labels: Sequence[str] = LABELS,
    seeds: Sequence[int] = (0, 1),
    scatter: float = 0.0,
    alphas: Mapping[str, float] | None = None,
    objective: str = "iddpm",
) -> Path:
    """Run folders in `folder`: scores fall as (times x GMACs)^-ALPHA, or as `alphas` say."""
    for family, (cost, times) in families.items():
        for label in labels:
            for seed in seeds:
                run = write_run(folder / "made", label, seed)
                config: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text())
                name = f"{family}-{label.replace('/', '')}-{seed}-{objective.replace(' ', '-')}"
                model = {"name": family, "block": BLOCKS.get(family, "")}
                recipe = {**config["recipe"], "model": {key: value for key, value in model.items() if value}}
                named = {"id": name, "label": f"{family} {label}", "axes": {"size": label[0]}, "recipe": recipe}
                (run / "config.yaml").write_text(yaml.safe_dump(config | named))
                facts = json.loads((run / "model.json").read_text())
                gmacs = cost * gmacs_of(label)
                said = {"family": family, "gmacs": gmacs, "objective": objective}
                (run / "model.json").write_text(json.dumps(facts | said))
                noise = np.random.default_rng([seed, len(name), *name.encode()]).normal(scale=scatter)
                fid = 5 * (times * gmacs) ** -(alphas or {}).get(family, ALPHA) * np.exp(noise)
                rows = [evaluation(label, step, seed, fid=float(fid) * (1 + 300 / step)) for step in STEPS]
                write_lines(run / "evals.jsonl", rows)
                (folder / "runs").mkdir(exist_ok=True)
                run.rename(folder / "runs" / name)
    return folder / "runs"


def family_tables(folder: Path, **options: Any) -> Tables:
    """The same, collected into `folder`/results."""
    return collect(write_families(folder, **options), folder / "results")
