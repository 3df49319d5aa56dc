"""Published models that others trained again: each repeat's FID beside the published one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.results.published import AT_THE_SOURCE, FAMILIES_400K, published_families

ORIGINAL = "DiT"  # the paper that others repeat, and its family
SUBJECT = ("model", "image_size")
# What has to be stated of a repeat, as published, if it is to say how much laboratories differ.
NEEDED = ("train_steps_k", "batch_size", "guidance", "labels")
# Habits of a laboratory: in these it may differ, which is a part of how much laboratories do.
HABITS = ("weights", "sampler", "sampling_steps", "decoder", "num_samples", "reference_statistics")
COLUMNS = ["model", "image_size", "train_steps_k", "published", "laboratory", "repeat", "ratio", "counted"]
COLUMNS += ["unclear", "otherwise", "checked", "source", "published_source"]


def repeats() -> pd.DataFrame:
    """Each DiT of families_400k.csv that others than its paper trained; models in the order of the paper's table.

    Returns:
        Columns: model, image_size, train_steps_k (of the published row), published (its FID), laboratory, repeat (its
        FID), ratio (repeat / published), counted (whether it was read at the source and all of `NEEDED` is as
        published), unclear (what of it is not), otherwise (which of `HABITS` are known to be others), checked, source,
        published_source. A repeat after steps that are not said, or at which the paper has no score, is one of the only
        score that the paper has of that model.

    Raises:
        ResultsError: the table is damaged, as `published_families` says.
    """
    rows: Any = published_families(FAMILIES_400K)
    rows = rows.loc[rows["family"] == ORIGINAL].to_dict("records")
    paper = [row for row in rows if row["laboratory"] == ORIGINAL]
    others = [row for row in rows if row["laboratory"] != ORIGINAL]
    found = [_beside(row, other) for row in paper for other in others if _repeats(other, row, paper)]
    return pd.DataFrame(found, columns=COLUMNS).astype({"counted": "bool", "unclear": "str", "otherwise": "str"})


def _repeats(other: dict[Any, Any], row: dict[Any, Any], paper: Sequence[dict[Any, Any]]) -> bool:
    is_only = sum(not _differing(row, each, SUBJECT) for each in paper) == 1
    return not _differing(row, other, SUBJECT if is_only else (*SUBJECT, "train_steps_k"))


def _beside(row: dict[Any, Any], other: dict[Any, Any]) -> dict[str, Any]:
    unclear = _differing(row, other, NEEDED)
    known = [name for name in HABITS if pd.notna(row[name]) and pd.notna(other[name])]
    return {
        **{name: row[name] for name in (*SUBJECT, "train_steps_k")},
        "published": row["fid"],
        "laboratory": other["laboratory"],
        "repeat": other["fid"],
        "ratio": other["fid"] / row["fid"],
        "counted": not unclear and other["checked"] == AT_THE_SOURCE,
        "unclear": "; ".join(unclear) or None,
        "otherwise": "; ".join(_differing(row, other, known)) or None,
        "checked": other["checked"],
        "source": other["source"],
        "published_source": row["source"],
    }


def _differing(row: dict[Any, Any], other: dict[Any, Any], names: Sequence[str]) -> list[str]:
    """In what `other` is not as the published `row`, or does not say it."""
    said = []
    for name in names:
        if pd.isna(other[name]):
            said.append(f"{name} not stated")
        elif pd.isna(row[name]) or other[name] != row[name]:
            said.append(f"{name} {other[name]}, not {row[name]}")
    return said
