"""A study as its page asks about it: which score, of which models, at which step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import ResultsError
from analysis.figures.scores import METRICS, one_study, over_seeds
from analysis.figures.sources import Source, measured
from analysis.laws.observed import METRICS as OF_LAWS
from analysis.paper.tables import frechet_name
from analysis.report.tables import names
from analysis.results.tables import Tables, own_metrics


@dataclass(frozen=True)
class Study:
    """tables: as collected, all texts visible. source: the same, with one label for each model (`measured`)."""

    tables: Tables
    source: Source

    @staticmethod
    def of(tables: Tables) -> Study:
        """The study of collected `tables`, whose texts are visible."""
        name = names(tables.runs["sweep"])
        return Study(tables, measured(tables, "measured" if name == "published" else name))

    @cached_property
    def titles(self) -> dict[str, str]:
        """The metrics that some score has -> their titles and directions, the suite's first: {"kid": "KID ↓"}."""
        evals = self.source.tables.evals
        known = {**METRICS, "fid": f"{frechet_name(evals)} ↓", **own_metrics(self.source.tables.runs)}
        return {name: title for name, title in known.items() if name in evals and _finite(evals[name]).any()}

    @cached_property
    def metric(self) -> str | None:
        """What the page asks about: the Fréchet distance, else the first score with a law; None without any."""
        return next((name for name in self.titles if name in OF_LAWS), next(iter(self.titles), None))

    def called(self, metric: str) -> str:
        """Its title alone."""
        return self.titles[metric][:-1].strip()

    def lower_is_better(self, metric: str) -> bool:
        return self.titles[metric].endswith("↓")

    def scores(self, metric: str) -> pd.DataFrame:
        """All rows of which the metric and the compute are finite numbers."""
        evals = self.source.tables.evals
        return evals.loc[_finite(evals[metric]) & _finite(evals["gmacs"])]

    def at_last(self, metric: str) -> tuple[pd.DataFrame, str]:
        """The scores at the last step that at least half as many runs have one at as at any, and "at step 600".

        Where that is fewer than half of the models, as with equal compute, each model's own last step.
        """
        scores = self.scores(metric)
        counts: dict[Any, int] = scores["step"].value_counts().to_dict()
        step = max(int(step) for step, count in counts.items() if 2 * count >= max(counts.values()))
        shared = scores.loc[scores["step"] == step]
        if 2 * shared["label"].nunique() >= scores["label"].nunique():
            return shared, f"at step {step:,}"
        own: Any = scores.groupby("label")["step"].transform("max")
        return scores.loc[scores["step"] == own], "each at its last scored step"

    def models(self, metric: str) -> pd.DataFrame:
        """Each model, `at_last`, by compute: label, size, patch, block, gmacs, num_seeds, the metric, its range."""
        return over_seeds(self.at_last(metric)[0], ["block"], metric)

    def over_training(self, metric: str) -> pd.DataFrame:
        """One row a model and step, by compute and step, as `models`; batch_size beside."""
        points = over_seeds(self.scores(metric), ["block", "step"], metric)
        runs = self.source.tables.runs
        batch = dict(zip(runs["label"], runs["batch_size"], strict=True))
        return points.assign(batch_size=[batch[label] for label in points["label"]])

    @cached_property
    def mixed(self) -> str | None:
        """Why runs of this study cannot share a chart; None where they can."""
        runs = self.source.tables.runs
        try:
            one_study(runs)
        except ResultsError as error:
            return str(error)
        return None


def _finite(values: Any) -> Any:
    return np.isfinite(values.to_numpy(float, na_value=np.nan))
