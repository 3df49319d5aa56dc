"""What came of a prediction: hit or miss, or why there is no verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from analysis.advice.prediction import Prediction, score_key
from analysis.errors import ResultsError
from analysis.laws.held_out import decimals_of
from analysis.laws.observed import mean_losses
from analysis.results.tables import Tables


@dataclass(frozen=True)
class Verdict:
    """A prediction beside the scores of its runs.

    Attributes:
        scores: seed -> score at the last step, by seed.
        problems: why the prediction counts for nothing: it, its tables or its runs were changed, or the scores are of
            another key.
        checked: what was found to be in order.
        unknown: what could not be checked, and why.
    """

    prediction: Prediction
    scores: Mapping[int, float]
    problems: tuple[str, ...]
    checked: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Of the seeds, geometric: laws are fitted to logarithms."""
        return float(np.exp(np.mean(np.log([*self.scores.values()]))))

    @property
    def is_hit(self) -> bool | None:
        """Whether the interval of a single run holds the mean; None: there is no verdict."""
        return None if self.problems else self.prediction.single.holds(self.mean)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        single, law = self.prediction.single, self.prediction.law
        seeds = [
            {"seed": seed, "score": score, "inside": single.holds(score), "ratio": score / single.estimate}
            for seed, score in self.scores.items()
        ]
        return {
            "verdict": {True: "hit", False: "miss", None: None}[self.is_hit],
            "model": self.prediction.model,
            "steps": self.prediction.steps,
            "beyond": self.prediction.beyond,
            "metric": self.prediction.question.metric,
            "prediction": {"law": law.to_dict(), "single_run": single.to_dict()},
            "seeds": seeds,
            "mean": {
                "score": self.mean,
                "inside": single.holds(self.mean),
                "inside_law": law.holds(self.mean),
                "ratio": self.mean / single.estimate,
            },
            "problems": list(self.problems),
            "checked": list(self.checked),
            "unknown": list(self.unknown),
        }

    def headline(self) -> list[str]:
        """The answer in three lines."""
        asked, single = self.prediction, self.prediction.single
        said = decimals_of(single.estimate)
        inside = sum(single.holds(score) for score in self.scores.values())
        means = f"the mean of {len(self.scores)} seeds is {self.mean:{said}}" if len(self.scores) > 1 else (
            f"the one seed has {self.mean:{said}}"
        )  # fmt: skip
        held = f"{'inside' if single.holds(self.mean) else 'outside'} {single.low:{said}} to {single.high:{said}}"
        off = f"{self.mean / single.estimate - 1:+.0%} of what was predicted"
        wide = f"{single.level:.0%} of runs, a factor of {single.high / single.low:.3g}"  # a wide one is hit easily
        found = f"{means}, {held} ({wide}), {off}"
        begin = {True: "Hit", False: "Miss", None: "No verdict"}[self.is_hit]
        return [
            f"{begin}: {self.problems[0] if self.problems else found}.",
            f"Predicted: {asked.model} for {asked.steps:,} steps, {asked.beyond:.3g} times its longest training: "
            f"{asked.question.metric} {single.estimate:{said}}.",
            f"{inside} of {len(self.scores)} seeds inside the interval of a single run.",
        ]

    def table(self) -> list[list[str]]:
        """Rows of text under `HEADINGS`: the seeds, and their mean."""
        single = self.prediction.single
        said = decimals_of(single.estimate)
        named = {f"seed {seed}": score for seed, score in self.scores.items()} | {"mean": self.mean}
        return [
            [name, f"{score:{said}}", f"{score / single.estimate - 1:+.1%}", "hit" if single.holds(score) else "miss"]
            for name, score in named.items()
        ]


HEADINGS = ["run", "measured", "off by", "interval of a single run"]


def judge(
    prediction: Prediction,
    tables: Tables,
    problems: Sequence[str] = (),
    checked: Sequence[str] = (),
    unknown: Sequence[str] = (),
) -> Verdict:
    """Compare a prediction with the tables of its runs; `problems`, `checked`, `unknown`: what is known of it already.

    Raises:
        ResultsError: a run is missing, not finished or given up, or has no score that is positive and finite.
    """
    scores, keys = {}, {}
    for run, seed in sorted(prediction.runs.items(), key=lambda each: each[1]):
        rows: Any = tables.runs.loc[tables.runs["run"] == run]
        who = f"{prediction.model} seed {seed} ({run})"
        if rows.empty:
            raise ResultsError(f"no verdict yet: {who} is not among the runs; needed: all {len(prediction.runs)}")
        state = str(rows["state"].iloc[0])
        if state == "failed":
            raise ResultsError(f"no verdict: {who} was given up; `ditbench sweep why` says why")
        row = _score_row(tables, run, prediction)
        if row is None:
            raise ResultsError(f"no verdict yet: {who} has no score at step {prediction.steps:,} ({state})")
        score = float(row["score"])
        if not (np.isfinite(score) and score > 0):
            raise ResultsError(
                f"no verdict: {who}: {prediction.question.metric} is {score:g}; needed: a positive, finite score"
            )
        scores[seed] = score
        keys[seed] = score_key(row) if prediction.key else {}
    found = [*problems, *_other_keys(prediction, keys), *_too_early(prediction, tables)]
    in_order = [*checked]
    if prediction.key and not _other_keys(prediction, keys):
        in_order.append("the scores have the prediction's key")
    if not _too_early(prediction, tables):
        in_order.append(f"it was made ({prediction.made}) before the first of the runs was started")
    return Verdict(prediction, scores, tuple(found), tuple(in_order), tuple(unknown))


def _score_row(tables: Tables, run: str, prediction: Prediction) -> Any:
    """The row of a run's score at its last step, in the column `score`."""
    metric = prediction.question.metric
    table: Any
    if metric == "loss":
        table = mean_losses(tables)
    elif metric in tables.evals.columns:
        table = tables.evals.assign(score=tables.evals[metric].astype("float64"))
    else:
        raise ResultsError(f"no verdict: the tables have no {metric}")
    rows = table.loc[(table["run"] == run) & (table["step"] == prediction.steps)]
    return None if rows.empty else rows.iloc[0]


def _other_keys(prediction: Prediction, keys: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """Of the first seed whose score differs, in what."""
    for seed, key in keys.items():
        differing = [name for name, value in key.items() if value != prediction.key.get(name)]
        if differing:
            said = "; ".join(f"{name} {prediction.key.get(name)}, here {key[name]}" for name in differing)
            return [f"seed {seed} was scored otherwise than the scores that the prediction is made from: {said}"]
    return []


def _too_early(prediction: Prediction, tables: Tables) -> list[str]:
    """Runs that were started before the prediction was made."""
    made = datetime.fromisoformat(prediction.made)
    its: Any = tables.runs.loc[tables.runs["run"].isin(list(prediction.runs))]
    started = {row["run"]: row["started"] for row in its.to_dict("records") if not pd.isna(row["started"])}
    early = {run: time for run, time in started.items() if _is_before(time, made)}
    if not early:
        return []
    run = min(early, key=lambda each: early[each])
    return [f"run {run} was started ({early[run]}) before the prediction was made ({prediction.made})"]


def _is_before(time: str, made: datetime) -> bool:
    try:
        return datetime.fromisoformat(time) < made
    except (ValueError, TypeError):  # no time, or one without its zone
        return False
