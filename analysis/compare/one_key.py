"""Scores of designs that may stand side by side: those of one evaluation key, or what differs and how to mend it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.errors import ResultsError
from analysis.results.model_names import differing_settings, setting
from analysis.results.run_folders import EVALUATION_KEY_TYPES
from analysis.results.sampled import told_apart
from analysis.results.tables import MODEL, Tables, patches

KEY = tuple(EVALUATION_KEY_TYPES)
OF_SCORING = {
    "num_samples": "--num-samples",
    "reference": "--reference",
    "extractor": "--extractor",
    "kid_subset_size": "--kid-subset-size",
}
"""What `ditbench evaluate` can change for samples that are there: key -> option."""
OF_SAMPLING = {
    "weights": "--ema",
    "sampler": "--sampler",
    "sampling_steps": "--sampling-steps",
    "clip_denoised": "--clip-denoised",
    "guidance_scale": "--guidance-scale",
    "guidance_channels": "--guidance-channels",
    "guidance_interval": "--guidance-interval",
    "guide": "--guide",
    "decoder": "--decoder",
    "labels": "--labels",
}
"""What takes new samples, by `ditbench sample`; the number of network calls follows."""


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
    counts = {
        key: (sum(key in keys for keys in own.values()), sum(_keys(rows)[key] for rows in scores.values()))
        for key in shared
    }
    best = max(shared, key=lambda key: (counts[key], str(key)))
    return {name: replace(designs[name], evals=rows.loc[_key_of(rows) == best]) for name, rows in scores.items()}


# What a recipe's `evaluation` calls a column of its scores' key otherwise.
IN_A_RECIPE = {"ema": "weights"}


def is_setting(by: str | None) -> bool:
    """Whether `by` names a column of a score's key, among others with commas between."""
    return by is not None and not {*_columns(by)}.isdisjoint(KEY)


def _columns(by: str) -> list[str]:
    return [IN_A_RECIPE.get(name.strip(), name.strip()) for name in by.split(",")]


def by_setting(results: Mapping[str, Tables], by: str, between: tuple[str, str] | None) -> dict[str, Tables]:
    """Two ways of scoring as designs: two values of `by` -> the tables with those scores alone.

    `by` may name columns of runs too: two objectives, each by a sampler of its own. The designs' keys say nothing of
    `by` any more. In all else they agree: with the recipe's `evaluation` where both designs have such scores, else in
    the one way that they have in common.

    Raises:
        ResultsError: several folders, an unknown column, not two values, several ways, block designs or objectives that
            they have in common, or runs of a design that were trained in several ways.
    """
    if len(results) > 1:
        raise ResultsError(f"--by {by}: of the scores in one folder; given: {', '.join(results)}")
    (tables,) = results.values()
    columns = _columns(by)
    rows = _all_scores(tables).reset_index(drop=True)
    if "guidance_scale" in columns:
        rows = _guided_alike(rows)
    runs = tables.runs.assign(patch=patches(tables.runs)).set_index("run")
    for name in columns:
        if name not in (*KEY, *runs.columns):
            raise ResultsError(f"--by {by}: no column {name}; accepted: {', '.join([*KEY, *runs.columns])}")
    values_of = {name: rows[name] if name in KEY else runs[name].loc[rows["run"]] for name in columns}
    called = pd.Series([", ".join(map(_said_or_none, each)) for each in zip(*values_of.values(), strict=True)])
    values = list(dict.fromkeys(called))
    names = tuple(by_words(name, values) for name in between or values)
    if len(set(names)) != 2 or not {*names} <= {*values}:
        hint = "needed: two" if len(values) < 2 else "choose two: --between A,B"
        raise ResultsError(f"--by {by}: there are scores of {'; '.join(values) or 'nothing'}; {hint}")
    ignored = [name for name in KEY if name in (*columns, "network_calls")]  # the latter follows from the others
    plain = rows.assign(**dict.fromkeys(ignored))
    keys: Any = _key_of(plain)
    shared = set.intersection(*(set(keys[called == name]) for name in names))
    if not shared:
        one, two = (dict(zip(KEY, next(iter(keys[called == name])), strict=True)) for name in names)
        apart = {name: f"{_said(one[name])}, {_said(two[name])}" for name in KEY if one[name] != two[name]}
        said = "; ".join(f"{name}: {texts}" for name, texts in apart.items())
        raise ResultsError(
            f"--by {by}: {' and '.join(names)} differ in more ({said}); say more: --by {by},{next(iter(apart))}"
        )
    own = set(_key_of(tables.evals.assign(**dict.fromkeys(ignored)))) & shared
    if len(ways := own or shared) > 1:
        apart = {name: sorted({_said(key[at]) for key in ways}) for at, name in enumerate(KEY)}
        said = {name: texts for name, texts in apart.items() if len(texts) > 1}
        listed = "; ".join(f"{name}: {', '.join(texts)}" for name, texts in said.items())
        more = f"--by {','.join([by, *said])}"
        raise ResultsError(f"--by {by}: both have scores of several kinds ({listed}); say more: {more}")
    chosen = keys.isin(list(ways))
    found = {name: _with_scores(tables, plain.loc[chosen & (called == name)], by) for name in names}
    for column in ("block", "objective"):
        several = sorted({text for each in found.values() for text in each.runs[column]})
        if column not in columns and len(several) > 1:
            said = f"{column} ({', '.join(several)})"
            raise ResultsError(f"--by {by}: the scores are of several: {said}; say more: --by {column},{by}")
    return found


def _with_scores(tables: Tables, evals: pd.DataFrame, by: str) -> Tables:
    """The runs that have these scores, and no others of them."""
    runs = tables.runs.loc[tables.runs["run"].isin(evals["run"])]
    for name in differing_settings(runs, [*MODEL, "block", "objective"])[:1]:
        said = ", ".join(map(setting, runs[name].drop_duplicates()))
        raise ResultsError(f"--by {by}: the runs differ in {name} ({said}); say more: --by {by},{name}")
    train = tables.train.loc[tables.train["run"].isin(runs["run"])]
    return replace(tables, runs=runs, train=train, evals=evals, other_evals=tables.other_evals.iloc[:0])


def by_words(name: str, designs: Collection[str]) -> str:
    """The one design that somebody writes as `name`, as a recipe may: null, True, 1.50, std=0.1; else the one that has
    all its words, value by value: "order=2, 25" stands for "mine norm=1 order=2, 25". `name` itself where it is a
    design, and where no design or several have them."""
    if name in designs:
        return name
    given = [_words(part) for part in name.split(", ")]
    said = {design: [_words(part) for part in design.split(", ")] for design in designs}
    same = [design for design, parts in said.items() if parts == given]
    having = same or [
        design
        for design, parts in said.items()
        if len(parts) == len(given) and all({*ours} <= {*theirs} for ours, theirs in zip(given, parts, strict=True))
    ]
    return having[0] if len(having) == 1 else name


def _words(value: str) -> list[str | float]:
    """The words of a value, numbers among them as such, without what does not tell values apart."""
    words: list[str | float] = []
    for word in re.split(r"[\s=,]+", value.lower()):
        try:
            words.append(float(word))
        except ValueError:
            words.append("none" if word == "null" else word)
    return words[1:] if words[0] == "ema" and len(words) > 1 else words


def _guided_alike(rows: pd.DataFrame) -> pd.DataFrame:
    """Scores without guidance once for each way of guidance, on some channels for one, that the others have."""
    ways = [name for name in KEY if name.startswith("guid") and name != "guidance_scale"]
    is_plain = rows["guidance_scale"] == 1
    found = rows.loc[~is_plain, ways].drop_duplicates()
    plain = rows.loc[is_plain].drop(columns=ways).merge(found, how="cross")
    return pd.concat([rows.loc[~is_plain], plain.loc[:, [*rows.columns]]], ignore_index=True)


def _said_or_none(value: Any) -> str:
    return _said(None if pd.isna(value) else value)


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


def _difference(first: str, one: dict[str, Any], other: str, two: dict[str, Any], designs: Mapping[str, Tables]) -> str:
    """What differs, and how the scores of `other` are made comparable; or of `first`, if that has more samples."""
    if one["num_samples"] > two["num_samples"]:  # the first so many of them are there
        first, one, other, two = other, two, first, one
    differing = told_apart([name for name in KEY if one[name] != two[name]])
    values = "; ".join(f"{name}: {_said(one[name])} in {first}, {_said(two[name])} in {other}" for name in differing)
    said = f"{first} and {other} have no comparable scores ({values})"
    if "best_of" in differing:
        return f"{said}; needed: scores that were chosen among as many, by `ditbench search`, or none that was"
    where = _where_features_are(one, two, first)
    commands = _remedy(differing, one, two, designs[other])
    return f"{said}; score {other} again like {first}: {commands}{where}"


def _remedy(differing: list[str], wanted: dict[str, Any], there: dict[str, Any], again: Tables) -> str:
    """The commands after which scores as `wanted` are among those of `again`."""
    step, sweeps = max(_all_scores(again)["step"].tolist()), again.runs["sweep"].dropna().unique()
    samples, commands = f"RUN/samples/step-{step:08d}.npy", []
    if set(differing) & {*OF_SAMPLING, "network_calls"} or wanted["num_samples"] > there["num_samples"]:
        samples = "RUN/again.npy"
        commands.append(f"`ditbench sample RUN --step {step} --out {samples}{_sampling(wanted)}`")
    options = [_scoring(name, wanted, there) for name in differing if name in OF_SCORING]
    commands.append(f"`ditbench evaluate {samples} --run RUN{''.join(options)}`")
    runs = f"runs/{sweeps[0]}" if len(sweeps) == 1 else "runs/SWEEP"
    return f"for each RUN in {runs}: {', '.join(commands)}; then `ditbench collect {runs}` again"


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
        elif name == "weights":  # "ema" is the average of the recipe's own decay, which is sampled anyway
            options += "" if value == "ema" else f" {option} {str(value).removeprefix('ema ')}"
        elif name == "guide" and value is not None:
            options += _guide(str(value))
        elif name == "guidance_interval" and value is not None:
            options += f" {option} {str(value).replace(' to ', ' ')}"
        elif value is not None:
            options += f" {option} {_said(value)}"
    return options


def _guide(value: str) -> str:
    """Of "step 300" of the run itself, "0123456789 step 300" of another run, or "name-01234567" of a file."""
    of_run = re.fullmatch(r"(?:(\w+) )?step (\d+)", value)
    if of_run is None:
        return f" --guide {_network(value)}"
    run, step = of_run.groups()
    return f"{f' --guide runs/*/*-{run}' if run else ''} --guide-step {step}"


def _scoring(name: str, wanted: dict[str, Any], there: dict[str, Any]) -> str:
    option, value = OF_SCORING[name], _said(wanted[name])
    if name == "reference":
        return f" {option} {next((each for each in REFERENCES if value.startswith(each)), 'REFERENCE')}"
    if name == "extractor":
        return " --work FEATURES" if _trained_here(wanted, there) else f" {option} {_network(value)}"
    return f" {option} {value}"


def _where_features_are(wanted: dict[str, Any], there: dict[str, Any], first: str) -> str:
    """A network that the suite trains comes out a little differently on another machine, and `--work` has it."""
    if not _trained_here(wanted, there):
        return ""
    return f" (FEATURES: the folder features beside the runs of {first}, which has {wanted['extractor']})"


def _trained_here(wanted: dict[str, Any], there: dict[str, Any]) -> bool:
    one, two = wanted["extractor"], there["extractor"]
    return one != two and _network(one) == _network(two)


REFERENCES = ("adm-imagenet-256", "adm-imagenet-512")


def _network(extractor: str) -> str:
    """Without the hash of its weights."""
    return re.sub(r"-[0-9a-f]{8}$", "", extractor)


def _said(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
