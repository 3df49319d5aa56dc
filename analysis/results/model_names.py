"""What the models of a study are called: told apart by what they are, never by how their labels happen to read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.results.run_folders import KNOB_DEFAULTS, SETTINGS
from analysis.results.tables import MODEL, patches

OF_ITS_STEPS = ("warmup_steps", "cooldown_steps")
"""Settings that are parts of a training: those of a ladder grow with it, and runs with the same shares are alike."""


def model_names(runs: pd.DataFrame) -> pd.DataFrame:
    """Of each run: `network`, one text for a network in any block design, and `label`, one for each design of it.

    A label that all runs of a model share is its name. Where they differ ("XL/2 {block}", "S/4 seed {seed}"), size and
    patch are, or the model's name; and what two models would share is followed by that in which they differ.
    A run that has not begun, so that its model is not known, keeps its label. The index is that of `runs`.
    """
    begun = runs.loc[runs["gmacs"].notna()].assign(said_patch=patches(runs))
    network, label = (_texts(begun, columns) for columns in (MODEL, (*MODEL, "block")))
    return pd.DataFrame(
        {
            name: texts.astype("str").reindex(runs.index).fillna(runs["label"])
            for name, texts in (("network", network), ("label", label))
        }
    )


def designs(runs: pd.DataFrame) -> list[str]:
    """The block design of each run; with the objective, where the runs have several: "adaln-zero, my_objective:L1".

    Where two families have designs of one name, the family's stands before it, "JiT adaln-zero"; one without designs
    goes by its own name beside others.

    Where runs of one model differ in a setting of their training, that tells designs apart as well: "adaln-zero,
    learning_rate 0.001", but for a knob that is off. So runs that differ in more than their seed never count as seeds
    of one another.

    The hash that `ditbench try` puts into the name of a part, my_block_3f2a91c0:MEAN, is left out where none is needed.
    """
    names = runs["block"].tolist()
    families = runs["family"].tolist() if "family" in runs else names
    shared = {name for name in names if len({f for f, of in zip(families, names, strict=True) if of == name}) > 1}
    shared |= {""} if "family" in runs and len(set(families)) > 1 else set()
    names = [f"{f} {name}".strip() if name in shared else name for f, name in zip(families, names, strict=True)]
    if len(set(runs["objective"])) > 1:
        names = [", ".join(filter(None, row)) for row in zip(names, runs["objective"], strict=True)]
    said = settings_said(runs, differing_settings(runs, [*MODEL, "block", "objective"]))
    names = [", ".join(filter(None, each)) for each in zip(names, said, strict=True)]
    plain = [re.sub(r"_[0-9a-f]{8}(?=:)", "", name) for name in names]
    return plain if len(set(plain)) == len(set(names)) else names


def differing_settings(runs: pd.DataFrame, columns: Sequence[str], settings: Sequence[str] = SETTINGS) -> list[str]:
    """The `settings` in which runs differ that agree in `columns`.

    Of `OF_ITS_STEPS` it is shares of `steps`, where `runs` has these: a warm-up of 50 of 600 is one of 100 of 1,200.
    """
    known = [name for name in settings if name in runs and len(runs[name].unique()) > 1]
    if not known:
        return []
    groups: Any = runs.groupby(list(columns), dropna=False)
    apart = [name for name in known if (groups[name].nunique(dropna=False) > 1).any()]
    if "steps" not in runs or not set(apart) & {*OF_ITS_STEPS}:
        return apart
    return [name for name in apart if name not in OF_ITS_STEPS or not all(_one_share(of, name) for _, of in groups)]


def _one_share(runs: pd.DataFrame, name: str) -> bool:
    """Whether all runs have as many of their steps as one share, rounded, or the same number."""
    parts, steps = runs[name].to_numpy(float), runs["steps"].to_numpy(float)
    return len(set(parts)) == 1 or bool(np.max((parts - 0.5) / steps) < np.min((parts + 0.5) / steps))


def settings_said(runs: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Of each run its settings in words, "learning_rate 0.001, clip_grad_norm 1", without the knobs that are off."""
    rows = runs.loc[:, [*columns]].to_dict("records")
    return [", ".join(_said_of(key, row[key]) for key in columns if not _is_off(key, row[key])) for row in rows]


def _said_of(name: str, value: Any) -> str:
    return str(value) if name in ("block", "objective") else f"{name} {setting(value)}"


def _is_off(name: str, value: Any) -> bool:
    default = KNOB_DEFAULTS.get(name)
    return name in KNOB_DEFAULTS and bool(pd.isna(value) if default is None else value == default)


def setting(value: Any) -> str:
    """A setting's value as a recipe has it: 0.001, 32, true, none."""
    if bool(pd.isna(value)):
        return "none"
    if isinstance(value, (bool, np.bool_)):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _texts(runs: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """One text for each different row of `columns`, (len(runs),)."""
    models: Any = runs.groupby(list(columns), dropna=False, sort=False).ngroup()
    first = runs.loc[~models.duplicated()].set_axis(models.loc[~models.duplicated()])
    labels: Any = runs.groupby(models)["label"].unique()
    texts = {model: names[0] if len(names) == 1 else _composed(first.loc[model]) for model, names in labels.items()}
    for text in set(texts.values()):
        alike = [model for model in texts if texts[model] == text]
        if len(alike) == 1:
            continue
        differing = [name for name in reversed(columns) if first.loc[alike, name].nunique(dropna=False) > 1]
        if len(alike) == first.loc[alike, "model"].nunique():  # which says the family too
            differing = ["model"]
        for model in alike:
            texts[model] = " ".join([text, *(_said(name, first.loc[model, name]) for name in differing)])
    return models.map(texts)


def _composed(run: pd.Series) -> str:
    size, patch = run["size"], run["said_patch"]
    if isinstance(size, str) and size and bool(pd.notna(patch)):
        return size if size == str(patch) else f"{size}/{patch}"
    return str(run["model"]).removeprefix("DiT-")


def _said(column: str, value: Any) -> str:
    return str(value) if column in ("block", "model") else f"{column} {value}"
