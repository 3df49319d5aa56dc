"""A report's pictures: the study's own charts, and those figures of the catalogue that show something else."""

from __future__ import annotations

from dataclasses import dataclass, field

from analysis.laws.report import FitReport
from analysis.report import charts
from analysis.report.chart import Chart
from analysis.report.study import Study

# What the page's own charts, its samples and its tables show of the catalogue.
SHOWN = ("bubbles", "fid-vs-steps", "sample-grid", "gflops-vs-fid", "training-compute", "metrics", "loss", "fitted-law", "residuals", "seeds")


@dataclass(frozen=True)
class Shown:
    """first: what answers the question; of_laws; more; pictures: of the catalogue."""

    first: list[Chart] = field(default_factory=list)
    of_laws: list[Chart] = field(default_factory=list)
    more: list[Chart] = field(default_factory=list)
    pictures: list = field(default_factory=list)


def figures(study: Study, law: FitReport | None) -> tuple[Shown, list[str]]:
    """The pictures, and a line for each that could not be drawn."""
    metric, shown, undrawn = study.metric, Shown(), []
    losses = charts.loss(study)
    shown.more.extend([losses] if losses else [])
    if metric is None:
        return shown, ["No chart of scores: there is none yet."]
    if study.mixed:
        return shown, [f"No chart of scores: {study.mixed}."]
    shown.first.extend([charts.compute(study, metric, law), charts.training(study, metric)])
    of_laws = [charts.residuals(study, metric, law) if law else None, charts.seeds(study, metric)]
    shown.of_laws.extend(chart for chart in of_laws if chart)
    steps = charts.steps(study, metric)
    shown.more[:0] = [steps] if steps else []
    shown.more.extend(charts.metrics(study))
    return shown, undrawn
