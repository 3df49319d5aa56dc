"""The figures of a report, and what each shows, in words and numbers, for those who do not see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from analysis.export_tables import frechet_name
from analysis.table_formats import significant
from analysis.tables import Tables

number = significant(4)


@dataclass(frozen=True)
class Picture:
    """function: its name in `analysis.figures`; describe: its data (None without a .csv) and the tables -> alt text."""

    id: str
    function: str
    caption: str
    describe: Callable[[pd.DataFrame | None, Tables], str]


def compute(data: pd.DataFrame | None, tables: Tables) -> str:
    """Of gflops_vs_fid.csv: the ends of each panel."""
    assert data is not None
    parts = []
    for panel, points in data.groupby("panel", sort=True):
        ordered = points.sort_values("gmacs")
        score = frechet_name(tables.evals) if panel == "measured" else "FID-50K"
        low, high = ordered.iloc[0], ordered.iloc[-1]
        parts.append(
            f"{str(panel).capitalize()}, {len(ordered)} models: the {score} goes from {number(low['fid'])} at "
            f"{number(low['gmacs'])} GMACs ({low['label']}) to {number(high['fid'])} at {number(high['gmacs'])} GMACs "
            f"({high['label']})."
        )
    return "Scatter plots of the score against the compute of one forward pass. " + " ".join(parts)


def curves(data: pd.DataFrame | None, tables: Tables) -> str:
    """Of fid_vs_steps.csv: each model at its first and last step."""
    assert data is not None
    parts = [f"Lines of the {frechet_name(tables.evals)} over the training steps, by patch size and by model size."]
    for label, points in data.groupby("label", sort=False):
        ordered = points.sort_values("step")
        low, high = ordered.iloc[0], ordered.iloc[-1]
        parts.append(f"{label}: {number(low['fid'])} at step {low['step']}, {number(high['fid'])} at {high['step']}.")
    return " ".join(parts)


def samples(data: pd.DataFrame | None, tables: Tables) -> str:
    """Of the sample grid: whose samples, and how good each model is."""
    seed = tables.evals["seed"].min()
    shown = tables.evals.loc[(tables.evals["seed"] == seed) & tables.evals["run"].isin(list(tables.samples))]
    last = shown.drop_duplicates("run", keep="last")
    scores = ", ".join(f"{row['label']} {number(row['fid'])}" for row in last.to_dict("records"))
    return (
        f"Ten samples, one each of the classes 0 to 9, of each of {len(last)} models of seed {seed}, from the same "
        f"noise and labels. {frechet_name(tables.evals)} of each model: {scores}."
    )


PICTURES = (
    Picture("gflops-vs-fid", "gflops_vs_score", "Scores against the compute of one forward pass", compute),
    Picture("fid-vs-steps", "training_curves", "Scores over training", curves),
    Picture("sample-grid", "sample_grid", "Samples of the models from the same noise", samples),
)
