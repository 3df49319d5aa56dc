"""What a report says of the runs: their recipe, environment, hours, failures, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import yaml

from analysis.report.tables import duration, names, plain_table
from analysis.results.run_folders import KNOB_DEFAULTS, OPTIMISATION_TYPES, SCORE_TYPES
from analysis.results.run_history import SESSION_FACTS, RunHistory, differing_keys, hours
from analysis.results.tables import Tables, diverged

# What the tables say of the recipe, where there are no run folders to read it from.
RECIPE_COLUMNS = ("data", "block", "steps", "batch_size", *OPTIMISATION_TYPES)


def recipe(tables: Tables, histories: Sequence[RunHistory]) -> dict[str, Any]:
    """What all runs share, as YAML, and where they differ; of `tables` alone, what these say of it."""
    if not histories:
        used = [name for name, default in KNOB_DEFAULTS.items() if any(tables.runs[name].dropna() != default)]
        known = tables.runs.loc[:, [*RECIPE_COLUMNS, *used]].dropna(axis="columns", how="all")
        return {"known": [(str(name), names(known[name])) for name in known.columns]}
    shared, differing = differing_keys([history.recipe for history in histories])
    table = None
    if not differing.columns.empty:
        identity = {"label": [history.label for history in histories], "run": [history.run for history in histories]}
        rows = pd.DataFrame(identity).assign(**_as_text(differing))
        table = plain_table("recipes", "Where the runs' recipes differ", "Keys of the recipe; none: not set.", rows)
    text = yaml.safe_dump(shared, sort_keys=False, allow_unicode=True)
    return {"known": None, "runs": len(histories), "shared": text, "differing": table}


def environment(tables: Tables, histories: Sequence[RunHistory]) -> dict[str, Any]:
    """Every run with its state and device, and the environments that they were started in."""
    columns = ["label", "seed", "run", "state", "starts", "started", "finished", "device", "precision", "commit"]
    conventions = (
        "Device, precision and commit of the last start; started: the first. A + after a commit: uncommitted changes."
    )
    runs = plain_table("runs", "Runs", conventions, tables.runs.loc[:, columns])
    if not histories:
        return {"runs": runs, "sessions": "Versions and every single start are in the run folders only."}
    sessions: Any = pd.concat([history.sessions for history in histories], ignore_index=True)
    kept = [name for name in SESSION_FACTS if name in sessions.dropna(axis="columns", how="all").columns]
    groups = sessions.loc[:, ["phase", *kept]].groupby(["phase", *kept], dropna=False, sort=True)
    starts = groups.size().reset_index(name="number of starts")
    conventions = "One row for all starts in the same environment."
    return {"runs": runs, "sessions": plain_table("sessions", "Environments", conventions, starts)}


def cost(tables: Tables, histories: Sequence[RunHistory], planned: pd.DataFrame | None) -> dict[str, Any]:
    """Hours spent by each run, beside the planned ones if there are any."""
    spent = hours(tables, list(histories))
    kinds = {
        "training_hours": "Training",
        "sampling_hours": "Sampling",
        "training_device_hours": "Device time of training",
    }
    if planned is not None:
        spent = spent.merge(planned, on="run", how="left")
        kinds |= {
            "planned_training_hours": "Device time planned for training",
            "planned_scoring_hours": "Device time planned for scoring",
        }
    totals = [(title, _total(spent[name])) for name, title in kinds.items()]
    lines = ["No plan was given to set beside them."] if planned is None else _ratio(spent)
    conventions = (
        "From logged speeds: training hours are steps × batch / images per second of each row of the log, sampling "
        "hours samples / images per second of each score; waiting, start-up, repeated steps and the feature network "
        "are in neither. Device-hours: times the devices of the session, from the run folders. Planned: device-hours."
    )
    return {"totals": totals, "lines": lines, "hours": plain_table("hours", "Hours of each run", conventions, spent)}


def _ratio(spent: pd.DataFrame) -> list[str]:
    """Spent over planned, where both are known."""
    both = spent.dropna(subset=["training_device_hours", "planned_training_hours"])
    if both.empty:
        return ["No run has both planned and spent device-hours."]
    ratio = both["training_device_hours"].sum() / both["planned_training_hours"].sum()
    share = f"{len(both)} of {len(spent)} runs"
    return [f"Training took {ratio:.2f} times the planned device-hours ({share} where both are known)."]


def failures(tables: Tables, histories: Sequence[RunHistory], undrawn: Sequence[str]) -> dict[str, Any]:
    """Failed attempts, and what the study lacks; `undrawn`: a line for each figure that it has no data for."""
    runs = tables.runs
    failed = [f"{_run_name(row)} was given up." for row in _in_state(runs, "failed")] or ["No run was given up."]
    failed += _not_finite(tables)
    for history in histories:
        for row in history.failures.to_dict("records"):
            failed.append(f"{history.label} ({history.run}), {row['phase']}, {row['time']}: {row['error']}")
    if histories and all(history.failures.empty for history in histories):
        failed.append("No attempt failed.")
    if not histories:
        failed.append("Attempts that failed and were repeated are recorded in the run folders only.")
    missing = [f"{_run_name(row)} has not finished" for row in _in_state(runs, "unfinished")]
    since = diverged(tables.train)
    for row in runs.loc[runs["run"].isin(list(since))].to_dict("records"):
        missing.append(f"The loss of {_run_name(row)} is not a finite number since step {since[row['run']]:,}")
    if not tables.evals.empty:
        last = max(tables.evals["step"])
        at_last = tables.evals.loc[tables.evals["step"] == last, "run"].tolist()
        unscored = runs.loc[~runs["run"].isin(at_last)].to_dict("records")
        missing += [f"{_run_name(row)} has no score at step {last:,}" for row in unscored]
        computed = tables.evals.dropna(axis="columns", how="all").columns
        never = [name for name in SCORE_TYPES if name not in computed]
        if never:
            missing.append(f"Computed for no run: {', '.join(never)}")
    unsampled = len(runs) - len(tables.samples)
    if unsampled:
        missing.append(f"{unsampled} of {len(runs)} runs have no samples in the tables")
    if histories and len(histories) < len(runs):
        missing.append(f"{len(runs) - len(histories)} of {len(runs)} runs have no run folder any more")
    return {"failed": failed, "missing": [*missing, *undrawn] or ["Nothing."]}


def _not_finite(tables: Tables) -> list[str]:
    """What runs did about losses and gradients that were not finite, as their recipes have it."""
    said, runs = [], tables.runs.set_index("run", drop=False)
    for column, one, several in (
        ("skipped", "1 step was left out", "{} steps were left out"),
        ("roll_backs", "it was rolled back once", "it was rolled back {} times"),
    ):
        if column in tables.train.columns:
            most: Any = tables.train.groupby("run", sort=False)[column].max()
            counts: dict[Any, int] = most.dropna().astype(int).to_dict()
            for run, count in counts.items():
                name, done = _run_name(runs.loc[run].to_dict()), one if count == 1 else several.format(f"{count:,}")
                said += [f"{name}: {done}, where the loss or its gradient was not finite."] if count else []
    return said


def _in_state(runs: pd.DataFrame, state: str) -> list[dict[Any, Any]]:
    return runs.loc[runs["state"] == state].to_dict("records")


def _run_name(row: dict[Any, Any]) -> str:
    return f"{row['label']}, seed {row['seed']} ({row['run']})"


def _as_text(table: pd.DataFrame) -> dict[str, list[str]]:
    return {name: ["none" if value is None else str(value) for value in table[name]] for name in table.columns}


def _total(values: Any) -> str:
    known = values.dropna()
    if known.empty:
        return "not known"
    share = f" ({len(known)} of {len(values)} runs)" if len(known) < len(values) else ""
    return f"{duration(known.sum())}{share}"
