"""Plans of the paper's scaling study on profiles of A100s, for the tests of `sweeps.planning.plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sweeps
from sweeps.cluster import ClusterProfile
from sweeps.expand import Sweep, load_sweep
from sweeps.planning.plan import Plan, RunPlan, plan

SCALING = load_sweep(Path(sweeps.__file__).parent / "studies" / "scaling.yaml")
A100 = {"name": "A100", "peak_tflops": {"fp32": 19.5, "tf32": 156.0, "bf16": 312.0}}
# 8 x A100, XL/2 (paper's code): steps a second; a step is 3 x 256 forward passes of 118.64 GMACs (paper, Table 4).
PUBLISHED_STEPS_PER_S = {"fp32": 0.51, "tf32": 0.81}
DAY = "24:00:00"


def profile(**changes: Any) -> ClusterProfile:
    content: dict[str, Any] = {
        "executor": "slurm",
        "device": "cuda",
        "precision": "tf32",
        "gpu": A100,
        "mfu": {"training": 0.1, "sampling": 0.2, "source": "a guess"},
        "time_limit": DAY,
        "training": [{"gpus_per_node": 8}],
        "evaluation": [{"gpus_per_node": 2}],
    }
    content = {key: value for key, value in {**content, **changes}.items() if value is not None}
    return ClusterProfile.model_validate(content)


def local(**changes: Any) -> ClusterProfile:
    return ClusterProfile.model_validate({"executor": "local", **changes})


def only(*labels: str) -> Sweep:
    return Sweep("some", [recipe for recipe in SCALING.recipes if recipe.label in labels])


def equal_runs(number: int) -> Sweep:
    return Sweep("seeds", [only("S/2").recipes[0].model_copy(update={"seed": seed}) for seed in range(number)])


def planned(sweep: Sweep, where: ClusterProfile, folder: Path = Path("nowhere"), **options: Any) -> Plan:
    return plan(sweep, where, "here", {recipe.id: folder / recipe.id for recipe in sweep.recipes}, **options)


def one(label: str, where: ClusterProfile, **options: Any) -> RunPlan:
    return planned(only(label), where, **options).runs[0]


def rows(path: Path, *content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
