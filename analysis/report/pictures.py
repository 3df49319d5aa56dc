"""What each figure of a report shows: a title, its conventions, and, for those who do not see it, words and numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.figures.metrics import METRICS
from analysis.laws.power_law import log_linear
from analysis.report.tables import number
from analysis.results.export_tables import frechet_name
from analysis.results.table_formats import heading_of
from analysis.results.tables import MIN_MODELS, Tables, own_metrics

OVER_SEEDS = "Where there are several seeds: their mean, and bars from the lowest to the highest."
BANDS = "Where there are several seeds: their mean, and bands from the lowest to the highest."
MARKS = "Colour and area say the model's size, shape its patch size."
COMPUTE = "GMACs of one forward pass of one image, on a logarithmic scale."

Describe = Callable[[Any, Tables], str]


@dataclass(frozen=True)
class Picture:
    """title; convention: how to read it; describe: its data (None without a .csv) and the tables -> alt text.

    published: the paper's scores are drawn beside the study's.
    """

    title: str
    convention: str
    describe: Describe
    published: bool = False


def bubbles(data: pd.DataFrame, tables: Tables) -> str:
    """Of bubbles.csv: the smallest and the largest."""
    return f"A bubble for each of {len(data)} models: {_trend(data, frechet_name(tables.evals))}"


def blocks(data: pd.DataFrame, tables: Tables) -> str:
    """Of blocks.csv: each model's designs at their last step, best first."""
    parts = [f"The {frechet_name(tables.evals)} of block designs."]
    for label, points in data.groupby("label", sort=False):
        last = points.sort_values("step").drop_duplicates("block", keep="last").sort_values("fid")
        designs = ", ".join(f"{row['block']} {number(row['fid'])}" for row in last.to_dict("records"))
        parts.append(f"{label} at step {last['step'].max():,}, best first: {designs}.")
    return " ".join(parts)


def curves(data: pd.DataFrame, tables: Tables) -> str:
    """Of fid_vs_steps.csv: each model at its first and last step."""
    parts = [f"Lines of the {frechet_name(tables.evals)} over the training steps, by patch size and by model size."]
    for label, points in data.groupby("label", sort=False):
        parts.append(f"{label}: {_first_and_last(points, 'fid', 'step')}.")
    return " ".join(parts)


def samples(data: pd.DataFrame | None, tables: Tables) -> str:
    """Of the sample grid: whose samples, and how good each model is."""
    with_samples = tables.evals.loc[tables.evals["run"].isin(list(tables.samples))]
    seed = with_samples["seed"].min()
    last = with_samples.loc[with_samples["seed"] == seed].drop_duplicates("run", keep="last")
    scores = ", ".join(f"{row['label']} {number(row['fid'])}" for row in last.to_dict("records"))
    return (
        f"Ten samples, one each of the classes 0 to 9, of each of {len(last)} models of seed {seed}, from the same "
        f"noise and labels. {frechet_name(tables.evals)} of each model: {scores}."
    )


def compute(data: pd.DataFrame, tables: Tables) -> str:
    """Of gflops_vs_fid.csv: the ends and the trend of each panel."""
    parts = ["Scatter plots of the score against the compute of one forward pass."]
    for panel, points in data.groupby("panel", sort=True):
        score = frechet_name(tables.evals) if panel == "measured" else "FID-50K"
        said = f"{str(panel).capitalize()}, {len(points)} models: {_trend(points, score)}"
        if len(points) >= MIN_MODELS and len(set(points["gmacs"])) > 1:
            r = log_linear(points["gmacs"], points["fid"]).r
            said += f" The correlation of its mean with log10 GMACs is {r:.3f}.".replace("-", "−")
        parts.append(said)
    return " ".join(parts)


def training_compute(data: pd.DataFrame, tables: Tables) -> str:
    """Of training_compute.csv: the models on the frontier."""
    best = data.loc[data["on_frontier"]].sort_values("training_gmacs")
    first, last = (
        f"{number(row['fid'])} for {number(row['training_gmacs'])} GMACs ({row['label']} at step {row['step']:,})"
        for row in best.iloc[[0, -1]].to_dict("records")
    )
    return (
        f"Lines of {data['label'].nunique()} models, {frechet_name(tables.evals)} against training compute, and a grey "
        f"frontier through the {len(best)} best of {len(data)} scores, from {first} to {last}. Models on it, by "
        f"compute: {', '.join(best['label'].drop_duplicates())}."
    )


def sampling_compute(data: pd.DataFrame, tables: Tables) -> str:
    """Of sampling_compute.csv: each model with its fewest and most sampling steps."""
    parts = [f"Lines of the {frechet_name(_all_evals(tables))} against the compute of sampling one image."]
    for label, points in data.groupby("label", sort=False):
        parts.append(f"{label}: {_first_and_last(points, 'fid', 'sampling_steps')}.")
    return " ".join(parts)


def metrics(data: pd.DataFrame, tables: Tables) -> str:
    """Of metrics.csv: every metric of the models with the least and the most compute."""
    parts = [f"{data['metric'].nunique()} scores against the compute of one forward pass."]
    called = METRICS | own_metrics(tables.runs)
    for metric, points in data.groupby("metric", sort=False):
        ordered = points.sort_values("gmacs")
        low, high = ordered.iloc[0], ordered.iloc[-1]
        parts.append(
            f"{called[str(metric)][:-2]}: {number(low['mean'])} for {low['label']}, which has the least compute, "
            f"{number(high['mean'])} for {high['label']}, which has the most."
        )
    return " ".join(parts)


def loss(data: pd.DataFrame, tables: Tables) -> str:
    """Of training_loss.csv: each model's first and last loss."""
    parts = ["Lines of the training loss over the steps, one panel per patch size."]
    for label, points in data.groupby("label", sort=False):
        parts.append(f"{label}: {_first_and_last(points, 'loss', 'step')}.")
    return " ".join(parts)


def fitted_law(data: pd.DataFrame, tables: Tables) -> str:
    """Of fitted_law.csv: the law's ends, how many models its band holds, and the held-out model."""
    ordered = data.sort_values("gmacs")
    fitted, largest = ordered.loc[~ordered["held_out"]], ordered.loc[ordered["held_out"]].iloc[0]
    inside = ((fitted["fid"] >= fitted["low"]) & (fitted["fid"] <= fitted["high"])).sum()
    low, high = fitted.iloc[0], fitted.iloc[-1]
    verdict = "inside" if largest["low"] <= largest["fid"] <= largest["high"] else "outside"
    return (
        f"A power law through {len(fitted)} models, from {number(low['line'])} at {number(low['gmacs'])} GMACs to "
        f"{number(high['line'])} at {number(high['gmacs'])}; {inside} of them lie in its grey band. "
        f"{largest['label']}, held out, is predicted at {number(largest['line'])}, {number(largest['low'])} to "
        f"{number(largest['high'])}; it scores {number(largest['fid'])}, {verdict}."
    )


def residuals(data: pd.DataFrame, tables: Tables) -> str:
    """Of residuals.csv: each patch size's range."""
    parts = [
        f"The {frechet_name(tables.evals)} over a power law's, against compute, one line per patch size; 1 is the law."
    ]
    for patch, points in data.groupby("patch", sort=True):
        low, high = points.loc[points["ratio"].idxmin()], points.loc[points["ratio"].idxmax()]
        parts.append(
            f"Patch size {patch}: {number(low['ratio'])} ({low['label']}) to {number(high['ratio'])} "
            f"({high['label']}), {(points['ratio'] > 1).sum()} of {len(points)} worse than the law."
        )
    return " ".join(parts)


def isoflop(data: pd.DataFrame, tables: Tables) -> str:
    """Of isoflop.csv: the best model at each budget."""
    parts = [f"The {frechet_name(tables.evals)} against parameters, one curve per budget of training compute."]
    for _, points in data.groupby(["patch", "budget"], sort=True):
        best = points.loc[points["score"].idxmin()]
        parts.append(
            f"Patch size {best['patch']}, {number(best['budget'])} GMACs: of {len(points)} models {best['label']} is "
            f"the best with {number(best['score'])}."
        )
    return " ".join(parts)


def seeds(data: pd.DataFrame, tables: Tables) -> str:
    """Of seeds.csv: the models whose seeds lie closest together and farthest apart."""
    spread: Any = data.groupby("label")["percent"].agg(["min", "max"])
    width = spread["max"] - spread["min"]

    def said(label: Any) -> str:
        low, high = spread.loc[label, "min"], spread.loc[label, "max"]
        return f"{label}, " + f"{low:+.1f} % to {high:+.1f} %".replace("-", "−")

    return (
        f"Each of {data['seed'].nunique()} seeds' {frechet_name(tables.evals)} above or below the mean of its model's, "
        f"for {len(spread)} models. Farthest apart: {said(width.idxmax())}; closest together: {said(width.idxmin())}."
    )


def guidance(data: pd.DataFrame, tables: Tables) -> str:
    """Of guidance.csv: each model's best scale, and its ends."""
    parts = [f"Scores against the guidance scale; the {frechet_name(_all_evals(tables))} of each model:"]
    groups: Any = data.groupby(["label", "step"], sort=False)
    for (label, step), points in groups:
        best = points.loc[points["fid"].idxmin()]
        ends = _first_and_last(points, "fid", "guidance_scale")
        parts.append(
            f"{label} at training step {step:,}: {ends}; best {number(best['fid'])} at {best['guidance_scale']:g}."
        )
    return " ".join(parts)


def decoders(data: pd.DataFrame, tables: Tables) -> str:
    """Of decoders.csv: each model with each decoder."""
    parts = [f"Scores with different decoders; the {frechet_name(_all_evals(tables))} of each model:"]
    for label, points in data.groupby("label", sort=False):
        each = ", ".join(f"{row['decoder']} {number(row['fid'])}" for row in points.to_dict("records"))
        parts.append(f"{label}: {each}.")
    return " ".join(parts)


def _trend(points: pd.DataFrame, score: str) -> str:
    """The ends in compute, and how steadily the score falls between them."""
    ordered = points.sort_values("gmacs")
    low, high = ordered.iloc[0], ordered.iloc[-1]
    falls = (ordered["fid"].diff().dropna() < 0).sum()
    return (
        f"the {score} goes from {number(low['fid'])} at {number(low['gmacs'])} GMACs ({low['label']}) to "
        f"{number(high['fid'])} at {number(high['gmacs'])} GMACs ({high['label']}), and falls in {falls} of "
        f"{len(ordered) - 1} steps to the model of next more compute."
    )


def _first_and_last(points: pd.DataFrame, score: str, at: str) -> str:
    ordered = points.sort_values(at)
    low, high = ordered.iloc[0], ordered.iloc[-1]
    return f"{number(low[score])} at {heading_of(at)} {low[at]:g}, {number(high[score])} at {high[at]:g}"


def _all_evals(tables: Tables) -> pd.DataFrame:
    """The figures that vary a setting of the evaluation draw the other evaluations too."""
    return pd.concat([part for part in (tables.evals, tables.other_evals) if not part.empty])


# The study in three figures first, then the others in the order of the catalogue.
PICTURES = {
    "gflops-vs-fid": Picture(
        "Scores against the compute of one forward pass",
        f"{COMPUTE} At the last step that most runs share. {OVER_SEEDS} The line is least squares in log10 GMACs, r "
        "its correlation. The paper's scores share a panel with the study's only where data and protocol are the same.",
        compute,
        published=True,
    ),
    "fid-vs-steps": Picture("Scores over training", f"{BANDS} {MARKS}", curves),
    "sample-grid": Picture(
        "Samples of the models from the same noise",
        "Rows are sizes, columns patch sizes; a cell holds the classes 0 to 4 above 5 to 9, of the smallest seed, at "
        "the run's last scored step. Not chosen.",
        samples,
    ),
    "bubbles": Picture(
        "Compute and scores at a glance", f"{COMPUTE} Areas are in proportion to it. Mean over the seeds.", bubbles
    ),
    "blocks": Picture("Block designs", f"Over training, or at the one step that was scored. {BANDS}", blocks),
    "training-compute": Picture(
        "Scores against training compute",
        "Training compute: GMACs × 3 × batch × steps, on a logarithmic scale. Mean over the seeds. Grey: the lowest "
        "score of at most so much compute.",
        training_compute,
    ),
    "sampling-compute": Picture(
        "Scores against sampling compute",
        "GMACs × sampling steps, twice that with guidance, on a logarithmic scale; without the decoder. "
        f"{BANDS} {MARKS}",
        sampling_compute,
    ),
    "metrics": Picture(
        "Every score against compute", f"{COMPUTE} ↓: lower is better; ↑: higher is. {OVER_SEEDS} {MARKS}", metrics
    ),
    "loss": Picture("Training loss", f"As logged, or means over windows of steps; logarithmic scales. {BANDS}", loss),
    "fitted-law": Picture(
        "A power law, and the largest model predicted from the others",
        f"{COMPUTE} Least squares of the logarithms without the largest model; band: 90 % prediction interval for one "
        f"more model. {OVER_SEEDS} Other forms of the law: below, in numbers.",
        fitted_law,
    ),
    "residuals": Picture(
        "What the power law leaves",
        "Score over the score of the power law through all models, both scales logarithmic; above 1: worse than the "
        "law. Mean over the seeds.",
        residuals,
    ),
    "isoflop": Picture(
        "Models of several sizes at equal training compute",
        "Mean over the seeds; budgets agree within 2 %; lines are parabolas in log(parameters).",
        isoflop,
    ),
    "seeds": Picture(
        "Spread of the scores over training seeds",
        "Each seed's score in % above the mean of its model's seeds, models in the order of compute.",
        seeds,
    ),
    "guidance": Picture("Scores against the guidance scale", "Scale 1 is no guidance. Mean over the seeds.", guidance),
    "decoders": Picture(
        "Scores with different decoders", "Mean over the seeds. The scales do not begin at zero.", decoders
    ),
}
