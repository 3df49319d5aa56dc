"""Scores of designs that may stand side by side: those of one evaluation key, or what differs and how to mend it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.errors import ResultsError
from analysis.results.run_folders import EVALUATION_KEY_TYPES
from analysis.results.tables import Tables

KEY = tuple(EVALUATION_KEY_TYPES)
OF_SCORING = {
    "num_samples": "--num-samples",
    "reference": "--reference",
    "extractor": "--extractor",
    "kid_subset_size": "--kid-subset-size",
}
"""What `ditbench evaluate` can change for samples that are there: key -> option."""
OF_SAMPLING = {
    "sampler": "--sampler",
    "sampling_steps": "--sampling-steps",
    "clip_denoised": "--clip-denoised",
    "guidance_scale": "--guidance-scale",
    "guidance_channels": "--guidance-channels",
    "decoder": "--decoder",
    "labels": "--labels",
}
"""What takes new samples, by `ditbench sample`."""


def of_one_key(designs: Mapping[str, Tables]) -> dict[str, Tables]:
    """The designs with only those scores whose evaluation key all of them have; the one of most scores, if several.

    Scores that were added with `ditbench evaluate --run` count (other_evals), so that what is not comparable as it was
    scored first can be made so.

    Raises:
        ResultsError: there is no such key: what differs between two designs, and the commands that mend it.
    """
    scores = {name: _all_scores(tables) for name, tables in designs.items()}
    for name, rows in scores.items():
        if rows.empty:
            raise ResultsError(f"{name}: no score yet; needed: scored runs, `ditbench collect` again after that")
    own = {name: _keys(designs[name].evals if len(designs[name].evals) else rows) for name, rows in scores.items()}
    shared = set.intersection(*(set(_keys(rows)) for rows in scores.values()))
    if not shared:
        first, *others = own
        other = next((name for name in others if not set(_keys(scores[name])) & set(_keys(scores[first]))), others[-1])
        raise ResultsError(_difference(first, _usual(own[first]), other, _usual(own[other]), designs))
    # The one that most designs were scored with first; then that of most scores.
    counts = {key: (sum(key in keys for keys in own.values()), sum(_keys(s).get(key, 0) for s in scores.values())) for key in shared}  # fmt: skip
    best = max(shared, key=lambda key: (counts[key], str(key)))
    return {name: replace(designs[name], evals=rows.loc[_key_of(rows) == best]) for name, rows in scores.items()}


def _all_scores(tables: Tables) -> pd.DataFrame:
    others = tables.other_evals
    if others.empty:
        return tables.evals
    columns = [name for name in tables.evals.columns if name in others.columns]
    rows = pd.concat([tables.evals, others.loc[:, columns]], ignore_index=True)
    return rows.drop_duplicates(["run", "step", *KEY], ignore_index=True)


def _key_of(rows: pd.DataFrame) -> pd.Series:
    texts = rows.loc[:, [*KEY]].astype("object").where(rows.loc[:, [*KEY]].notna(), None)
    return pd.Series([tuple(row) for row in texts.itertuples(index=False)], rows.index, dtype="object")


def _keys(rows: pd.DataFrame) -> dict[Any, int]:
    """Key -> how many scores have it."""
    found: dict[Any, int] = {}
    for key in _key_of(rows):
        found[key] = found.get(key, 0) + 1
    return found


def _usual(keys: Mapping[Any, int]) -> dict[str, Any]:
    return dict(zip(KEY, max(keys, key=lambda key: keys[key]), strict=True))


def _difference(
    first: str, one: dict[str, Any], other: str, two: dict[str, Any], designs: Mapping[str, Tables]
) -> str:
    """What differs, and how the scores of `other` are made comparable; or of `first`, if that has more samples."""
    if one["num_samples"] > two["num_samples"]:  # the first so many of them are there
        first, one, other, two = other, two, first, one
    differing = [name for name in KEY if one[name] != two[name]]
    values = "; ".join(f"{name}: {_said(one[name])} in {first}, {_said(two[name])} in {other}" for name in differing)
    said = f"{first} and {other} have no comparable scores ({values})"
    if "weights" in differing:
        return f"{said}; needed: scores of the same kind of weights"
    return f"{said}; score {other} again like {first}: {_remedy(differing, one, two, designs[first], designs[other])}"


def _remedy(differing: list[str], wanted: dict[str, Any], there: dict[str, Any], like: Tables, again: Tables) -> str:
    """The commands after which scores as `wanted` are among those of `again`."""
    step, sweep = int(again.evals["step"].max()), _sweep(again)
    samples, commands = f"RUN/samples/step-{step:08d}.npy", []
    if set(differing) & set(OF_SAMPLING) or wanted["num_samples"] > there["num_samples"]:
        samples = "RUN/again.npy"
        commands.append(f"`ditbench sample RUN --step {step} --out {samples}{_sampling(wanted)}`")
    options = [_scoring(name, wanted, there, like) for name in differing if name in OF_SCORING]
    commands.append(f"`ditbench evaluate {samples} --run RUN{''.join(options)}`")
    return f"for each RUN in runs/{sweep}: {', '.join(commands)}; then `ditbench collect runs/{sweep}` into its results"


def _sampling(wanted: dict[str, Any]) -> str:
    options = f" --num-samples {wanted['num_samples']}"
    for name, option in OF_SAMPLING.items():
        value = wanted[name]
        if name == "clip_denoised":
            options += f" {option}" if value else ""
        elif name == "sampler":
            sampler, *chosen = str(value).split(" ")
            options += f" {option} {sampler}" + "".join(f" --sampler-option {each}" for each in chosen)
        elif name == "decoder":  # name@hash of its weights
            options += "" if value in (None, "pixels") else f" {option} {str(value).partition('@')[0]}"
        elif value is not None:
            options += f" {option} {_said(value)}"
    return options


def _scoring(name: str, wanted: dict[str, Any], there: dict[str, Any], like: Tables) -> str:
    option, value = OF_SCORING[name], _said(wanted[name])
    if name == "reference":
        known = next((each for each in REFERENCES if value.startswith(each)), None)
        return f" {option} {known or f'REFERENCE (what {value} was made of)'}"
    if name == "extractor":
        network = _network(value)
        if network != _network(_said(there[name])):
            return f" {option} {network}"
        # Trained by the suite itself, a little differently on each machine; `--work` is where it is looked for.
        return f" --work runs/{_sweep(like)}/features (where {value} is; copy it from the machine that trained it)"
    return f" {option} {value}"


REFERENCES = ("adm-imagenet-256", "adm-imagenet-512")


def _network(extractor: str) -> str:
    """Without the hash of its weights."""
    return re.sub(r"-[0-9a-f]{8}$", "", extractor)


def _sweep(tables: Tables) -> str:
    sweeps = tables.runs["sweep"].dropna().unique()
    return str(sweeps[0]) if len(sweeps) == 1 else "SWEEP"


def _said(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
