"""Measured scores beside published ones, and whether they lie within what laboratories differ by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.compare.between_labs import BetweenLabs, between_labs
from analysis.compare.repeats import repeats
from analysis.results.published import compared
from analysis.results.tables import Tables

TEXT_HEADINGS = ("model", "score", "between laboratories", "guidance", "decoder", "source")
HEADINGS = ["model", "seed", "step", "score", "published", "ours", "difference", "%", "between laboratories"]
HEADINGS += ["guidance", "decoder", "source"]


def known_spread(level: float = 0.9) -> BetweenLabs:
    """By those of `repeats` that count."""
    rows = repeats()
    return between_labs(rows.loc[rows["counted"]], level)


def with_spread(scores: pd.DataFrame, ours: str, level: float = 0.9) -> pd.DataFrame:
    """`scores` (columns metric, guidance_scale, published, and `ours`) with three columns more: between_labs_low and
    between_labs_high around each published FID without guidance, which alone was repeated, and between_labs, in words
    on which side of them ours lies.
    """
    low, high = pd.Series(float("nan"), scores.index), pd.Series(float("nan"), scores.index)
    repeated = (scores["metric"] == "fid") & (scores["guidance_scale"] == 1)
    if any(repeated):
        factor, published = known_spread(level).factor, scores["published"].where(repeated)
        low, high = factor.low * published, factor.high * published
    words = [
        None if pd.isna(start) else f"{'inside' if start <= score <= end else 'outside'} {start:.2f} to {end:.2f}"
        for score, start, end in zip(scores[ours], low, high, strict=True)
    ]
    text = pd.Series(words, scores.index, dtype="str")
    return scores.assign(between_labs_low=low, between_labs_high=high, between_labs=text)


def published_table(tables: Tables) -> list[list[str]]:
    """`compared` as rows of text under `HEADINGS`."""
    return [
        [
            row["label"],
            str(row["seed"]),
            f"{row['step']:,}",
            row["metric"],
            f"{row['published']:.2f}",
            f"{row['ours']:.2f}",
            f"{row['difference']:+.2f}",
            f"{100 * row['relative_difference']:+.1f}",
            "" if pd.isna(row["between_labs"]) else row["between_labs"],
            "none" if row["guidance_scale"] == 1 else f"{row['guidance_scale']:g}",
            row["decoder"],
            row["source"],
        ]
        for row in with_spread(compared(tables), "ours").to_dict("records")
    ]


def not_beside(missed: pd.DataFrame) -> list[str]:
    """A line for each score of `near_misses`: in what it differs from the nearest published one."""
    lines = []
    for _, rows in missed.groupby(["run", "step"], sort=False):
        differing = "; ".join(
            f"{row['condition']} is {row['ours']}, published {row['published']}" for row in rows.to_dict("records")
        )
        lines.append(f"{rows['label'].iloc[0]} at step {rows['step'].iloc[0]}: {differing}")
    return lines


def at_published_steps(missed: pd.DataFrame) -> pd.DataFrame:
    """Those of `near_misses` that differ in something else than their step."""
    if missed.empty:
        return missed
    return missed.groupby(["run", "step"], sort=False).filter(lambda rows: "step" not in set(rows["condition"]))


@dataclass(frozen=True)
class BesidePublished:
    """Scores of one metric beside the published ones.

    rows: one per model, step and way of scoring, with the columns label, step, metric, measured, num_seeds, published,
    relative_percent, source and those of `with_spread`.
    """

    rows: pd.DataFrame
    spread: BetweenLabs
    left_out: tuple[str, ...] = ()
    convention: str = "Every condition that the paper states is the published one; ours is the mean over seeds"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = self.rows.astype("object").where(self.rows.notna(), None)
        return {
            "scores": rows.to_dict("records"),
            "between_labs": self.spread.to_dict(),
            "convention": self.convention,
            "left_out": list(self.left_out),
            "headline": self.headline(),
            "sentence": self.sentence(),
        }

    def headline(self) -> list[str]:
        """A line for each score, and what the intervals rest on."""
        lines = [self._said(row) for row in self.rows.to_dict("records")]
        return [*lines, self.spread.sentence()] if any(self.rows["between_labs"].notna()) else lines

    def table(self) -> list[list[str]]:
        """Rows of text: name, value."""
        rows = [
            [f"{row['label']} at step {row['step']:,}", f"{_against(row)}, seeds: {row['num_seeds']}; {row['source']}"]
            for row in self.rows.to_dict("records")
        ]
        return [*rows, ["left out", "; ".join(self.left_out) or "none"]]

    def sentence(self) -> str:
        """The answer as one text."""
        return " ".join(self.headline())

    def _said(self, row: dict[Any, Any]) -> str:
        said = f"{row['label']} at step {row['step']:,}: {_against(row)}"
        if pd.isna(row["between_labs"]):
            return f"{said}; no repeats say by how much laboratories differ in that."
        return f"{said}: {row['between_labs']}, where other laboratories' may lie ({self.spread.factor.level:.0%})."


def _against(row: dict[Any, Any]) -> str:
    score = f"{row['metric']} {row['measured']:.4g} against the published {row['published']:.4g}"
    return f"{score} ({row['relative_percent']:+.1f} %)"


def notes(rows: list[list[str]]) -> list[str]:
    """What is to be said below those rows of `published_table`: what its intervals rest on, if there are any."""
    column = HEADINGS.index("between laboratories")
    return [known_spread().sentence()] if any(row[column] for row in rows) else []
