"""From the tables of collected sweeps to the scores of designs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.compare.one_key import by_words, of_one_key
from analysis.errors import ResultsError
from analysis.laws.observations import Observations
from analysis.laws.observed import collected_observations
from analysis.results.model_names import differing_settings, model_names, setting, settings_said
from analysis.results.published import has_published_key, published
from analysis.results.run_folders import SETTINGS
from analysis.results.tables import MODEL, Tables, patches

FAMILY, BLOCK, OBJECTIVE, LABEL, SOURCE = "family", "block", "objective", "label", "source"
# How a model was designed and trained: the columns that have as many values as a sweep gives them, all in one table.
DESIGN = (BLOCK, OBJECTIVE, *SETTINGS)


def collected_designs(
    results: Mapping[str, Tables],
    by: str | None = None,
    metric: str = "fid",
    step: int | None = None,
    between: tuple[str, str] | None = None,
) -> dict[str, Observations]:
    """The scores of two designs, or of all block designs or values of a setting, name -> rows at one step.

    What is paired between designs are models, told apart by what they are (`MODEL`), whatever their labels say; and,
    where the designs are values of some of `DESIGN`, the rest of it, if that differs between the runs of a model.

    Args:
        results: name -> tables of a folder that `collect` made.
        by: a column of the runs tables, or several with commas between, whose values are the designs, such as block or
            learning_rate,batch_size; label: models are, or, where the runs of one differ in more than their seed, all
            that have one label; or source: the folders are. Default: what `between` names; else block where there are
            several, or objective; else source.
        metric: one of `observed.METRICS`.
        step: default: the last that most runs share, which has to be the same of both designs.
        between: the designs to compare, of a setting by their values alone, else by words that one design alone has,
            such as "order=2"; needed where there are more than two, unless they are blocks, objectives or
            values of a setting.

    Raises:
        ResultsError: an unknown column, not two designs (but blocks, objectives and settings), scores that are not
            comparable (`of_one_key`), designs that differ in data or, unless it is what they are, batch_size, block or
            objective, or at different steps; and those of `observed.collected_observations`.
    """
    # Of what family and objective a run is that has not started, no table says.
    results = {name: _of_runs(tables, tables.runs.loc[tables.runs[FAMILY] != ""]) for name, tables in results.items()}
    by = by or _usual(results, between)
    columns = [column.strip() for column in by.split(",")]
    own_labels = columns == [LABEL] and bool(_settings_of_models(results))
    members = _members(results, columns, own_labels)
    if between is not None:
        between = _meant(between[0], members), _meant(between[1], members)
        unknown = [name for name in between if name not in members]
        if unknown or len(set(between)) != 2:
            named = f"no design {unknown[0]}" if unknown else f"{between[0]} twice"
            raise ResultsError(f"--between {','.join(between)}: {named}; accepted: two of {', '.join(sorted(members))}")
        members = {name: members[name] for name in between}
    if len(members) < 2 or (len(members) > 2 and not ({*columns} <= {FAMILY, *DESIGN} or own_labels)):
        hint = _what_to_compare(results) if len(members) < 2 else "choose two: --between A,B"
        raise ResultsError(
            f"--by {by}: {len(members)} design{'' if len(members) == 1 else 's'} ({', '.join(sorted(members))}); {hint}"
        )
    names = _names_of_runs(results, "network")
    parts = {
        name: _named_models(_together([_of_runs(tables, runs) for tables, runs in of]), names)
        for name, of in members.items()
    }
    also = _paired_by(parts) if {*columns} <= {*DESIGN, SOURCE} else []
    designs = DESIGN if own_labels else (BLOCK, OBJECTIVE) if {LABEL, SOURCE} & {*columns} else ()
    compared = {*columns, *also, *designs}
    if columns == [BLOCK]:
        for name, tables in parts.items():
            families = sorted(set(tables.runs[FAMILY]))
            if len(families) > 1:
                raise ResultsError(
                    f"--by block: the block {name or 'none'} is of several families ({', '.join(families)}); say more: "
                    "--by family,block"
                )
    if FAMILY in columns:
        _check_families(parts, columns)
        compared.add(BLOCK)  # a family's own, which may go with the size
        also = [BLOCK] if any(tables.runs[BLOCK].nunique() > 1 for tables in parts.values()) else []
    for name in (name for name in ("data", "batch_size", BLOCK, OBJECTIVE) if name not in compared):
        values = {design: sorted(set(map(str, tables.runs[name]))) for design, tables in parts.items()}
        if len(set().union(*values.values())) > 1:
            said = ", ".join(f"{' and '.join(each)} in {design}" for design, each in values.items())
            raise ResultsError(f"the designs differ in {name} ({said}), in which they were trained; needed: one value")
    if metric == "loss":
        parts = {name: replace(tables, train=_finite(tables.train)) for name, tables in parts.items()}
    without = [name for name, tables in parts.items() if _is_empty(tables, metric)]
    if len(parts) == 2 or len(without) == len(parts):  # a table says of a design that it has none
        for name in without:
            raise ResultsError(f"{name}: {_why_none(parts[name], metric)}")
    scored = {name: tables for name, tables in parts.items() if name not in without}
    if metric != "loss":
        scored = of_one_key(scored)
    as_published = metric == "fid" and all(map(_as_published, scored.values()))
    found = {
        name: replace(_named(name, scored[name], metric, step, also), as_published=as_published)
        if name in scored
        else _unscored(tables, metric, also)
        for name, tables in parts.items()
    }
    steps = {name: rows.names[0].rpartition(" ")[2] for name, rows in found.items() if len(rows)}
    if len(set(steps.values())) > 1:
        at = ", ".join(f"{name} at {each}" for name, each in steps.items())
        rows = [tables.train if metric == "loss" else tables.evals for tables in scored.values()]
        both = sorted(set.intersection(*(set(each["step"]) for each in rows)))
        raise ResultsError(
            f"the last steps differ ({at}); needed: one that both have, "
            + (f"--step {both[-1]}" if both else "and there is none: scores of both at one step")
        )
    return found


def published_designs(metric: str = "fid", between: tuple[str, str] | None = None) -> dict[str, Observations]:
    """The DiT paper's FID-50K at 400K steps: of its block designs of XL/2, or of two of its models (`between`).

    Raises:
        ResultsError: another metric, or designs that it has no score of.
    """
    if metric != "fid":
        raise ResultsError(f"published: {metric} is not published at 400K steps; accepted: fid")
    table = published("dit_table4")
    table = table.loc[(table["image_size"] == 256) & (table["train_steps_k"] == 400)]
    table = table.assign(label=table["model"].str.removeprefix("DiT-"))
    blocks = {row["block"]: row for row in table.loc[table["label"] == "XL/2"].to_dict("records")}
    labels = {row["label"]: row for row in table.loc[table["block"] == "adaln-zero"].to_dict("records")}
    rows = blocks | labels
    if between is not None and (unknown := [name for name in between if name not in rows]):
        raise ResultsError(f"--between {','.join(between)}: no design {unknown[0]}; accepted: two of {', '.join(rows)}")
    return {name: _published(rows[name]) for name in between or blocks}


def _published(row: Mapping[Any, Any]) -> Observations:
    """One score, of the paper's one unnamed seed."""
    label = row["label"]
    return Observations(
        "FID-50K",
        np.array([row["fid50k"]]),
        {"compute": np.array([row["gmacs"]])},
        (label,),
        (f"{label} step {1000 * row['train_steps_k']}",),
        ("published",),
        as_published=True,
    )


def _check_families(parts: Mapping[str, Tables], columns: list[str]) -> None:
    """Refuse families of several objectives, or of models in several designs: which of them would be compared?"""
    for name, tables in parts.items():
        for column, of in ((OBJECTIVE, [FAMILY]), (BLOCK, MODEL)):
            if column not in columns and differing_settings(tables.runs, of, [column]):
                values = ", ".join(tables.runs[column].drop_duplicates())
                more = ",".join([*columns, column])
                raise ResultsError(
                    f"--by {','.join(columns)}: the runs of {name} differ in {column} ({values}); say more: --by {more}"
                )


def _usual(results: Mapping[str, Tables], between: tuple[str, str] | None) -> str:
    """By what designs are told apart, if nobody says."""
    runs = pd.concat([tables.runs for tables in results.values()], ignore_index=True)
    blocks, objectives = set(runs[BLOCK]), set(runs[OBJECTIVE])
    families = {str(family).casefold() for family in runs[FAMILY]}
    if len(families) > 1 and (between is None or {name.casefold() for name in between} <= families):
        return FAMILY
    if between is not None and not set(between) <= blocks:
        if set(between) <= set(results):
            return SOURCE
        return OBJECTIVE if set(between) <= objectives else LABEL
    if len(blocks) == 1 and len(results) > 1:
        return SOURCE
    return OBJECTIVE if len(blocks) == 1 < len(objectives) else BLOCK


def _what_to_compare(results: Mapping[str, Tables]) -> str:
    """Of results with one design."""
    runs = pd.concat([tables.runs for tables in results.values()], ignore_index=True)
    labels = list(dict.fromkeys(model_names(runs)["label"]))
    models = f"two models (--between {','.join(labels[:2])}), " if len(labels) > 1 else ""
    settings = ",".join(_settings_of_models(results))
    return (
        f"needed: two; accepted: {models}a column of runs in which they differ (--by {settings or 'COLUMN'}), or a "
        "second folder"
    )


def _settings_of_models(results: Mapping[str, Tables]) -> list[str]:
    """The settings of the training in which runs of one model and design differ."""
    runs = pd.concat([tables.runs for tables in results.values()], ignore_index=True)
    return differing_settings(runs, [*MODEL, BLOCK, "objective"])


def _paired_by(parts: Mapping[str, Tables]) -> list[str]:
    """Those of `DESIGN` in which runs of one model differ within a design."""
    runs = pd.concat([tables.runs.assign(of=name) for name, tables in parts.items()], ignore_index=True)
    return differing_settings(runs, ["of", "label"], DESIGN)


def _members(
    results: Mapping[str, Tables], columns: list[str], own_labels: bool
) -> dict[str, list[tuple[Tables, pd.DataFrame]]]:
    """Design -> each folder that has runs of it, and these."""
    if columns == [SOURCE]:
        return {source: [(tables, tables.runs)] for source, tables in results.items()}
    labels = {} if own_labels else _names_of_runs(results, "label")
    members: dict[str, list[tuple[Tables, pd.DataFrame]]] = {}
    for source, tables in results.items():
        for column in columns:
            if column not in tables.runs.columns:
                raise ResultsError(
                    f"{source}: runs have no column {column}; accepted: source, {', '.join(tables.runs.columns)}"
                )
        named = tables.runs
        if not own_labels:  # which are free text
            named = named.assign(label=[labels[run] for run in named["run"]])
        groups: Any = named.assign(patch=patches(named)).groupby(columns, dropna=False)
        for values, rows in groups:
            called = zip(columns, values, strict=True)
            said = [f"{column} {setting(value)}" if column in SETTINGS else str(value) for column, value in called]
            members.setdefault(", ".join(said), []).append((tables, named.loc[rows.index]))
    return members


def _meant(name: str, designs: Collection[str]) -> str:
    """The design that somebody calls `name`: of settings their values say which, however a number is written; of
    others words that are in it alone."""
    if name in designs:
        return name
    given = [each.strip() for each in name.split(",")]
    for design in designs:
        said = design.split(", ")
        if len(said) == len(given) and all(map(_is_value, given, said)):
            return design
    return by_words(name, designs)


def _is_value(given: str, said: str) -> bool:
    """Whether "1e-3" is of "learning_rate 0.001"."""
    column, _, value = said.partition(" ")
    try:
        return given == said or (column in SETTINGS and (given == value or float(given) == float(value)))
    except ValueError:
        return False


def _names_of_runs(results: Mapping[str, Tables], column: str) -> dict[str, str]:
    """Run id -> the name of its model, the same in all folders: as `model_names` has it in `column`.

    A model by another objective is another one, as in figures.
    """
    runs = pd.concat([tables.runs for tables in results.values()], ignore_index=True)
    if len(set(runs[OBJECTIVE])) > 1:
        runs = runs.assign(block=runs[BLOCK] + " " + runs[OBJECTIVE])
    return dict(zip(runs["run"], model_names(runs)[column], strict=True))


def _named_models(tables: Tables, names: Mapping[str, str]) -> Tables:
    def named(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(label=[names[run] for run in table["run"]])

    runs, train, evals, others = map(named, (tables.runs, tables.train, tables.evals, tables.other_evals))
    return replace(tables, runs=runs, train=train, evals=evals, other_evals=others)


def _of_runs(tables: Tables, runs: pd.DataFrame) -> Tables:
    chosen = list(runs["run"])
    of = {name: getattr(tables, name) for name in ("train", "evals", "other_evals")}
    return replace(tables, runs=runs, **{name: table.loc[table["run"].isin(chosen)] for name, table in of.items()})


def _together(parts: Sequence[Tables]) -> Tables:
    names = ("runs", "train", "evals", "other_evals")
    joined = {name: pd.concat([getattr(tables, name) for tables in parts], ignore_index=True) for name in names}
    repeated = joined["runs"].loc[joined["runs"]["run"].duplicated(), "run"]
    if not repeated.empty:
        raise ResultsError(f"the run {repeated.iloc[0]} is in two folders; needed: one each, or --by source")
    return replace(parts[0], **joined)


def _named(name: str, tables: Tables, metric: str, step: int | None, also: Sequence[str]) -> Observations:
    try:
        return collected_observations(tables, metric, step, models=_models(tables, also) if also else None)
    except ResultsError as error:
        raise ResultsError(f"{name}: {error}") from error


def _finite(train: pd.DataFrame) -> pd.DataFrame:
    return train.loc[np.isfinite(train["loss"].to_numpy(float))]


def _as_published(tables: Tables) -> bool:
    """Whether these scores, all of one key, could stand beside a published FID without guidance."""
    data, key = set(tables.runs["data"]), tables.evals.iloc[0].to_dict()
    return len(data) == 1 and key["guidance_scale"] == 1 and has_published_key(key, data.pop())


def _is_empty(tables: Tables, metric: str) -> bool:
    return tables.train.empty if metric == "loss" else tables.evals.empty and tables.other_evals.empty


def _why_none(tables: Tables, metric: str) -> str:
    """Why a design cannot be compared by `metric`, of which it has nothing, and what would help."""
    runs, what = tables.runs["state"].tolist(), "finite loss" if metric == "loss" else "score"
    if set(runs) != {"failed"}:
        return f"no {what} yet; needed: runs that have one, `ditbench collect` again after that"
    other = "" if metric == "loss" else "; accepted: --metric loss, at a --step that they reached"
    return f"no {what}, as all of its runs were given up ({len(runs)}){other}"


def _unscored(tables: Tables, metric: str, also: Sequence[str]) -> Observations:
    """Of a design that has no score at all: no row, and its runs that were given up."""
    models, runs = _models(tables, also), tables.runs.to_dict("records")
    names = {f"{models[row['run']]} seed {row['seed']}": row["state"] == "failed" for row in runs}
    left_out = tuple(f"{name}: no score{', given up' * failed}" for name, failed in names.items())
    given_up = tuple(name for name, failed in names.items() if failed)
    return Observations(metric, np.array([]), {"compute": np.array([])}, (), (), left_out=left_out, given_up=given_up)


def _models(tables: Tables, also: Sequence[str]) -> dict[str, str]:
    """Run -> what its model is called, with the settings that are paired with it: "B/2 (learning_rate 0.001)"."""
    runs = tables.runs
    said = [f" ({text})" if text else "" for text in settings_said(runs, also)]
    return dict(zip(runs["run"], runs["label"] + said, strict=True))
