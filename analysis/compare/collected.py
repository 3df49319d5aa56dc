"""From the tables of collected sweeps to the scores of designs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from analysis.errors import ResultsError
from analysis.laws.observations import Observations
from analysis.laws.observed import collected_observations
from analysis.results.model_names import model_names
from analysis.results.published import published
from analysis.results.tables import MIN_MODELS, Tables, comparable


def collected_designs(
    results: Mapping[str, Tables],
    by: str,
    metric: str = "fid",
    step: int | None = None,
    between: tuple[str, str] | None = None,
) -> dict[str, Observations]:
    """The scores of two designs, or of all block designs, name -> rows at one step.

    What is paired between designs are models, told apart by what they are (`MODEL`), whatever their labels say.

    Args:
        results: name -> tables of a folder that `collect` made.
        by: a column of the runs tables, whose values are the designs, such as block; or source: the folders are.
        metric: one of `observed.METRICS`.
        step: default: the last that most runs share, which has to be the same of both designs.
        between: the designs to compare; needed where there are more than two, unless they are blocks.

    Raises:
        ResultsError: an unknown column, not two designs (but blocks), scores that are not `comparable`, designs that
            differ in data, batch_size or, unless by source, block, or at different steps; and those of
            `observed.collected_observations`.
    """
    parts = _parts(results, by)
    if between is not None:
        unknown = [name for name in between if name not in parts]
        if unknown or len(set(between)) != 2:
            named = f"no design {unknown[0]}" if unknown else f"{between[0]} twice"
            raise ResultsError(f"--between {','.join(between)}: {named}; accepted: two of {', '.join(sorted(parts))}")
        parts = {name: parts[name] for name in between}
    if len(parts) < 2 or (len(parts) > 2 and by != "block"):
        hint = "needed: two" if len(parts) < 2 else "choose two: --between A,B"
        raise ResultsError(
            f"--by {by}: {len(parts)} design{'' if len(parts) == 1 else 's'} ({', '.join(sorted(parts))}); {hint}"
        )
    if metric != "loss":
        comparable(pd.concat([tables.evals for tables in parts.values()], ignore_index=True))
    runs = pd.concat([tables.runs for tables in parts.values()], ignore_index=True)
    for name in ("data", "batch_size", "block"):
        values = sorted(set(map(str, runs[name])))
        if len(values) > 1 and not (name == "block" and by in ("block", "source")):
            raise ResultsError(f"the designs differ in {name} ({', '.join(values)}); needed: one value")
    found = {name: _named(name, tables, metric, step) for name, tables in parts.items()}
    steps = {name: rows.names[0].rpartition(" ")[2] for name, rows in found.items()}
    if len(set(steps.values())) > 1:
        at = ", ".join(f"{name} at {each}" for name, each in steps.items())
        raise ResultsError(f"the last steps differ ({at}); needed: one that both have, --step N")
    return found


def _parts(results: Mapping[str, Tables], by: str) -> dict[str, Tables]:
    """Design -> its runs in all folders; their labels are the names of their models."""
    names = _network_of_runs(results)
    if by == "source":
        return {source: _named_models(tables, names) for source, tables in results.items()}
    parts: dict[str, list[Tables]] = {}
    for source, tables in results.items():
        if by not in tables.runs.columns:
            raise ResultsError(
                f"{source}: runs have no column {by}; accepted: source, {', '.join(tables.runs.columns)}"
            )
        for value, runs in tables.runs.groupby(by, dropna=False):
            parts.setdefault(str(value), []).append(_of_runs(tables, runs))
    return {name: _named_models(_together(tables), names) for name, tables in parts.items()}


def _network_of_runs(results: Mapping[str, Tables]) -> dict[str, str]:
    """Run id -> the name of its model apart from the block design, the same in all folders."""
    runs = pd.concat([tables.runs for tables in results.values()], ignore_index=True)
    return dict(zip(runs["run"], model_names(runs)["network"], strict=True))


def _named_models(tables: Tables, names: Mapping[str, str]) -> Tables:
    def named(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(label=[names[run] for run in table["run"]])

    runs, train, evals = map(named, (tables.runs, tables.train, tables.evals))
    return replace(tables, runs=runs, train=train, evals=evals)


def _of_runs(tables: Tables, runs: pd.DataFrame) -> Tables:
    chosen = list(runs["run"])
    train, evals = (table.loc[table["run"].isin(chosen)] for table in (tables.train, tables.evals))
    return replace(tables, runs=runs, train=train, evals=evals)


def _together(parts: Sequence[Tables]) -> Tables:
    runs, train, evals = (
        pd.concat([getattr(tables, name) for tables in parts], ignore_index=True) for name in ("runs", "train", "evals")
    )
    repeated = runs.loc[runs["run"].duplicated(), "run"]
    if not repeated.empty:
        raise ResultsError(f"the run {repeated.iloc[0]} is in two folders; needed: one each, or --by source")
    return replace(parts[0], runs=runs, train=train, evals=evals)


def _named(name: str, tables: Tables, metric: str, step: int | None) -> Observations:
    try:
        return collected_observations(tables, metric, step)
    except ResultsError as error:
        raise ResultsError(f"{name}: {error}") from error


def refuse_published() -> None:
    """Say why the paper's block designs cannot be compared in this way, with their plain scores.

    Raises:
        ResultsError: always.
    """
    table = published("dit_table4")
    blocks = table.loc[(table["model"] == "DiT-XL/2") & (table["image_size"] == 256) & (table["train_steps_k"] == 400)]
    scores = ", ".join(f"{row['block']} {row['fid50k']:.2f} at {row['gmacs']:.2f}" for row in blocks.to_dict("records"))
    raise ResultsError(
        f"--source published: Table 4 has only XL/2 of the other designs; needed: at least {MIN_MODELS} models of each "
        f"(FID-50K of XL/2 at 400K steps, at GMACs: {scores})"
    )
