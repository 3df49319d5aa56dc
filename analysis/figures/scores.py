"""The scores that a figure draws: checked, and put side by side only where they may be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.drawing.picture import NothingToDraw
from analysis.errors import ResultsError
from analysis.figures.sources import MAX_SOURCES, Source
from analysis.results.published import EVALUATION
from analysis.results.tables import MIN_MODELS, comparable, evaluation_keys, own_metrics
from analysis.results.visible import visible

# What the models of a scaling study have in common, for the published tables: those hold other studies too.
PUBLISHED_STUDY = {"block": "adaln-zero", "data": "imagenet-256-latents"}

METRICS = {
    "fid": "Fréchet distance ↓",
    "sfid": "sFID ↓",
    "kid": "KID ↓",
    "inception_score": "Inception Score ↑",
    "precision": "Precision ↑",
    "recall": "Recall ↑",
}
MOST_OF_A_NAME = 24  # characters of an extractor's name on an axis


@dataclass(frozen=True)
class Scores:
    """Evaluations of one source that may stand side by side: rows of `evals`, and what they are of."""

    source: Source
    evals: pd.DataFrame

    @property
    def runs(self) -> pd.DataFrame:
        runs = self.source.tables.runs
        return runs.loc[runs["run"].isin(self.evals["run"].tolist())]

    def named(self, points: pd.DataFrame) -> list[str]:
        """What a point is called in a panel of this design: its network's name."""
        networks: dict[str, str] = dict(zip(self.evals["label"], self.evals["network"], strict=True))
        return [networks[label] for label in points["label"]]

    @property
    def study(self) -> str:
        """ "Measured: digits", or "Published: ImageNet 256 x 256"."""
        data = names(self.runs, "data")
        if self.source.published:
            return f"Published: {data.replace('imagenet-256-latents', 'ImageNet 256 x 256')}"
        return f"Measured: {data}" if self.source.name in ("measured", data) else f"Measured: {self.source.name}"

    @property
    def title(self) -> str:
        """The study, and its block design if it is one of several."""
        return f"{self.study}, {self.source.design}" if self.source.design else self.study


def axis_name(group: Sequence[Scores], column: str = "fid") -> str:
    """What an axis of all figures calls a score of `group`: "FID-50K ↓", "Fréchet distance (digits-cnn) ↓", "KID ↓".

    A distance of other features than Inception's is no FID, and one of fewer samples no FID-50K.
    """
    own = {name: visible(title) for one in group for name, title in own_metrics(one.runs).items()}
    return (own | METRICS | {"fid": f"{_distance(group)} ↓"})[column]


def _distance(group: Sequence[Scores]) -> str:
    extractors = sorted({unhashed(name) for one in group for name in one.evals["extractor"]})
    if all(name.startswith("inception") for name in extractors):
        counts = {int(count) for one in group for count in one.evals["num_samples"]}
        thousands, rest = divmod(counts.pop(), 1000)
        return "FID" if counts or rest else f"FID-{thousands}K"
    if len(extractors) > 1:
        return "Fréchet distance"
    name = re.split("[:/]", extractors[0])[-1]
    return f"Fréchet distance ({name if len(name) <= MOST_OF_A_NAME else f'{name[: MOST_OF_A_NAME - 1]}…'})"


def unhashed(name: Any) -> str:
    """A reference's, extractor's or decoder's name without the hash at its end, which is for machines."""
    return re.sub(r"[-@][0-9a-f]{8}$", "", str(name))


def scaling_scores(source: Source) -> Scores:
    """All scores of a study whose models differ in size, patch size, block design and seed, and in nothing else.

    Raises:
        NothingToDraw: no score yet, or the runs differ in more than that.
        ResultsError: scores that are not finite or not `comparable`.
    """
    evals = source.tables.evals
    if source.published:
        runs = source.tables.runs
        wanted = (runs["block"] == PUBLISHED_STUDY["block"]) & (runs["data"] == PUBLISHED_STUDY["data"])
        evals = evals.loc[evals["run"].isin(runs.loc[wanted, "run"].tolist())]
    scores = Scores(source, checked(evals))
    one_study(scores.runs, scores.evals)
    return scores


def checked(evals: pd.DataFrame) -> pd.DataFrame:
    """`evals` as they are, if they can be drawn.

    Raises:
        NothingToDraw: there are none.
        ResultsError: a Fréchet distance is not finite, or the rows are not `comparable`.
    """
    if evals.empty:
        raise NothingToDraw("nothing to draw: no run has a score yet; needed: an evaluation")
    finite(evals, "fid")
    finite(evals, "gmacs")
    comparable(evals)
    return evals


def finite(rows: pd.DataFrame, column: str) -> None:
    """Refuse NaN and infinite values of `column`.

    Raises:
        ResultsError: names the first such row.
    """
    bad = rows.loc[~np.isfinite(rows[column].astype(float))]
    if not bad.empty:
        first = bad.iloc[0]
        raise ResultsError(
            f"{column} of {first['label']} (run {first['run']}, step {first['step']}) is {first[column]}; accepted: "
            f"finite values (not finite: {len(bad)} of {len(rows)} rows); leave the run out or score it again"
        )


def for_a_law(points: pd.DataFrame) -> None:
    """Refuse models that a power law of the Fréchet distance cannot go through.

    Raises:
        NothingToDraw: a score is not positive, or all models have the same compute.
    """
    for row in points.loc[points["fid"] <= 0].to_dict("records")[:1]:
        raise NothingToDraw(f"fid of {row['label']} is {row['fid']:g}; a power law needs positive scores")
    if not has_line(points):
        raise NothingToDraw("the models have the same compute; a law needs different ones")


def has_line(points: pd.DataFrame) -> bool:
    """Whether there are models enough, of different compute, for a line through them."""
    return len(points) >= MIN_MODELS and len(set(points["gmacs"])) > 1


def one_study(runs: pd.DataFrame, evals: pd.DataFrame | None = None) -> None:
    """Refuse runs that differ in more than size, patch size, block design and seed.

    `evals`: what is drawn of them, if that is scores alone: then a model and seed may have several runs, the rungs of a
    ladder, each scored at steps of its own.

    Raises:
        NothingToDraw: names in what they differ.
    """
    for name in ("data", "batch_size"):
        if len(set(runs[name])) > 1:
            raise NothingToDraw(f"the runs differ in {name} ({names(runs, name)}); keep one value to draw them")
    each = ["label", "block", "seed"]
    twice = runs.loc[runs.duplicated(each)] if evals is None else evals.loc[evals.duplicated([*each, "step"])]
    if not twice.empty:
        model, seed = twice.iloc[0][["label", "seed"]]
        raise NothingToDraw(f"{model} has several runs of seed {seed}; keep one run of each model, block and seed")


def at_last_shared_step(scores: Scores) -> Scores:
    """The scores at the last step that has at least half as many as any: a run that stopped early holds none back."""
    counts: dict[Any, int] = scores.evals["step"].value_counts().to_dict()
    last = max(int(step) for step, count in counts.items() if 2 * count >= max(counts.values()))
    return Scores(scores.source, scores.evals.loc[scores.evals["step"] == last])


def over_seeds(evals: pd.DataFrame, by: Sequence[str] = (), metric: str = "fid") -> pd.DataFrame:
    """Mean and range of `metric` of each model, and of each value of `by`, over the seeds.

    Columns: label, size, patch, *by, gmacs, num_seeds, METRIC, METRIC_min, METRIC_max.
    """
    points: Any = evals.groupby(["gmacs", "label", "size", "patch", *by], as_index=False).agg(
        num_seeds=("seed", "nunique"),
        **{metric: (metric, "mean"), f"{metric}_min": (metric, "min"), f"{metric}_max": (metric, "max")},
    )
    order = ["label", "size", "patch", *by, "gmacs", "num_seeds", metric, f"{metric}_min", f"{metric}_max"]
    return points.loc[:, order]


def side_by_side(scores: Sequence[Scores], also: tuple[str, ...] = ()) -> list[list[Scores]]:
    """Group what may share axes: the same data, batch, evaluation key (as far as a paper states it) and column `also`.

    No group has more than can be told apart.
    """
    panels: list[list[Scores]] = []
    for one in scores:
        for panel in panels:
            if len(panel) < MAX_SOURCES and _may_share_axes(panel[0], one, also):
                panel.append(one)
                break
        else:
            panels.append([one])
    return panels


def _may_share_axes(one: Scores, other: Scores, also: tuple[str, ...]) -> bool:
    # What a paper leaves open, such as the size of KID's subsets, cannot be compared with its scores' key.
    key = EVALUATION if one.source.published or other.source.published else evaluation_keys
    first, second = one.evals.iloc[0], other.evals.iloc[0]
    same_key = all(_agree(first[name], second[name]) for name in (*key, *also))
    return same_key and all(set(one.runs[name]) == set(other.runs[name]) for name in ("data", "batch_size"))


def _agree(one: Any, other: Any) -> bool:
    if pd.isna(one) or pd.isna(other):
        return bool(pd.isna(one) and pd.isna(other))
    if isinstance(one, str):  # a paper's name lacks the hash that follows ours
        short, long = sorted((one, str(other)), key=len)
        return long == short or long.startswith((f"{short}@", f"{short}-"))
    return bool(one == other)


def titles(group: Sequence[Scores]) -> str:
    """The titles of a panel's sources: "Measured: digits and digits-held-out"."""
    if len({one.source.name for one in group}) == 1:
        return group[0].title if len(group) == 1 else group[0].study
    later = [one.title if one.source.published else one.title.removeprefix("Measured: ") for one in group[1:]]
    return " and ".join([group[0].title, *later])


def sources_of(group: Sequence[Scores]) -> list[str]:
    """What a legend calls the sources of a panel: their designs, where all are of one study."""
    same = len({one.source.name for one in group}) == 1
    return [one.source.design if same and one.source.design else one.source.called for one in group]


def by_study(scores: Sequence[Scores]) -> list[list[Scores]]:
    """The designs of each study together."""
    studies = dict.fromkeys(one.source.name for one in scores)
    return [[one for one in scores if one.source.name == name] for name in studies]


def names(runs: pd.DataFrame, column: str) -> str:
    return ", ".join(str(value) for value in sorted(set(runs[column])) if value != "")


def blocks_of(runs: pd.DataFrame) -> str:
    """The block designs for a caption, "block adaln-zero, "; nothing for families that have none, such as U-Nets."""
    found = names(runs, "block")
    return f"block {found}, " if found else ""
