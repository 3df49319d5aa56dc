"""Measured scores beside published ones, and whether they lie within what laboratories differ by."""

from __future__ import annotations

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
    if repeated.any():
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


def notes(rows: list[list[str]]) -> list[str]:
    """What is to be said below those rows of `published_table`: what its intervals rest on, if there are any."""
    column = HEADINGS.index("between laboratories")
    return [f"Between laboratories: {known_spread().sentence()}"] if any(row[column] for row in rows) else []
