"""What run folders and plans say beyond the collected tables: recipes, starts, failures, hours spent and planned."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.errors import ResultsError
from analysis.results.run_folders import RunRecord, label_of, table_of_lines, value_of
from analysis.results.tables import Tables

SPEED = "sampling_images_per_s"
SESSION_FACTS = ("device", "precision", "threads", "world_size", "torch", "python", "commit", "cluster")
FAILURE_TYPES = {"time": "str", "error": "str"}
# Of training, and of scoring by jobs of their own.
PREFIXES = {"training": "", "scoring": "scoring-"}


@dataclass(frozen=True)
class RunHistory:
    """One run folder.

    recipe: as in config.yaml.
    sessions: one row per start: phase (training or scoring), time, device, precision, commit, what else it recorded.
    failures: one row per failed attempt: phase, time, error.
    """

    run: str
    label: str
    recipe: dict[str, Any]
    sessions: pd.DataFrame
    failures: pd.DataFrame


def read_histories(records: Iterable[RunRecord], tables: Tables) -> list[RunHistory]:
    """The runs of `tables` that still have a folder, in the order of `tables.runs`.

    Raises:
        ResultsError: a record is of a run that the tables lack, or a file is damaged.
    """
    known, histories = tables.runs["run"].tolist(), {}
    for record in records:
        config, path = record.config, record.folder / "config.yaml"
        run = str(value_of(path, config, "id"))
        if run not in known:
            raise ResultsError(
                f"{record.folder.parent}: the tables lack the run {run}; accepted: the folder that the tables were "
                "collected from, as it was then"
            )
        histories[run] = RunHistory(
            run,
            label_of(path, config),
            config["recipe"],
            _phases(record, "sessions.jsonl", {"time": "str", "device": "str", "precision": "str"}),
            _phases(record, "failures.jsonl", FAILURE_TYPES).dropna(subset="error"),
        )
    return [histories[run] for run in known if run in histories]


def differing_keys(recipes: list[dict[str, Any]]) -> tuple[dict[str, Any], pd.DataFrame]:
    """What all `recipes` share, nested as they are, and the dotted keys in which they differ, a column each."""
    flat = [_flat(recipe) for recipe in recipes]
    names = list(dict.fromkeys(name for recipe in flat for name in recipe))
    same = [name for name in names if all(name in recipe and recipe[name] == flat[0].get(name) for recipe in flat)]
    shared: dict[str, Any] = {}
    for name in same:
        *parents, last = name.split(".")
        place = shared
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = flat[0][name]
    others = [name for name in names if name not in same]
    return shared, pd.DataFrame([{name: recipe.get(name) for name in others} for recipe in flat], columns=others)


def hours(tables: Tables, histories: list[RunHistory]) -> pd.DataFrame:
    """Hours of each run, from its logged speeds.

    Columns: run, label, seed, training_hours and sampling_hours (wall time), training_device_hours (times the
    devices of the session that trained the step; empty without its history). Training: steps x batch / images_per_s
    of each row of the log; steps that an interruption repeated count once. Sampling: num_samples /
    sampling_images_per_s of the scores by the recipe's `evaluation`, empty if one does not say its speed, and of those
    of others that say it.
    Waiting, start-up and the feature network are in neither.
    """
    sessions = {history.run: history.sessions for history in histories}
    rows = []
    for run in tables.runs.to_dict("records"):
        train = tables.train.loc[tables.train["run"] == run["run"]]
        evals, others = (
            table.loc[table["run"] == run["run"]].reindex(columns=["num_samples", SPEED])
            for table in (tables.evals, tables.other_evals)
        )
        timed = pd.concat([evals, others.dropna(subset=SPEED)])
        intervals = train["step"].diff().fillna(train["step"]).astype(float)
        wall = intervals * run["batch_size"] / train["images_per_s"] / 3600
        rows.append(
            {
                "run": run["run"],
                "label": run["label"],
                "seed": run["seed"],
                "training_hours": wall.sum(skipna=False),
                "sampling_hours": _sampling_hours(timed),
                "training_device_hours": (wall * _devices(train["step"], sessions.get(run["run"]))).sum(skipna=False),
            }
        )
    return pd.DataFrame(rows)


def read_plan(path: Path, tables: Tables) -> pd.DataFrame:
    """A plan as `ditbench sweep plan --json` prints it, made before the first start.

    Columns: run, planned_training_hours and planned_scoring_hours (device-hours; empty where the plan knew no
    speed); one row per run of `tables` that the plan holds.

    Raises:
        ResultsError: not such a plan, or it holds no run of `tables`, or one of which steps were done by then.
    """
    known = set(tables.runs["run"])
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
        rows = [
            {
                "run": str(run["id"]),
                "steps_left": int(run["steps_left"]),
                "planned_training_hours": _hours(run["training_gpu_hours"]),
                "planned_scoring_hours": _hours(run["scoring_gpu_hours"]),
            }
            for run in runs
            if str(run["id"]) in known
        ]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ResultsError(
            f"{path}: not a plan ({error!r}); accepted: what `ditbench sweep plan --json` prints"
        ) from error
    columns = ["run", "steps_left", "planned_training_hours", "planned_scoring_hours"]
    plan = pd.DataFrame(rows, columns=columns).merge(tables.runs.loc[:, ["run", "steps"]], on="run")
    if plan.empty:
        raise ResultsError(f"{path}: plans none of these runs; accepted: the plan of their sweep")
    late = plan.loc[plan["steps_left"] != plan["steps"]]
    if not late.empty:
        row = late.iloc[0]
        raise ResultsError(
            f"{path}: run {row['run']} had {row['steps_left']} of {row['steps']} steps left; accepted: a plan made "
            "before the first start"
        )
    hours_columns = columns[2:]
    return plan.loc[:, ["run", *hours_columns]].astype(dict.fromkeys(hours_columns, "float64"))


def _hours(value: Any) -> float | None:
    return None if value is None else float(value)


def _phases(record: RunRecord, name: str, types: dict[str, str]) -> pd.DataFrame:
    tables = [
        table_of_lines(record, f"{prefix}{name}", types).assign(phase=phase) for phase, prefix in PREFIXES.items()
    ]
    filled = [table for table in tables if not table.empty] or tables[:1]
    return pd.concat(filled, ignore_index=True)


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in content.items():
        result |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result


def _sampling_hours(evals: pd.DataFrame) -> float:
    spent: Any = evals["num_samples"].astype(float) / evals[SPEED].astype(float) / 3600
    return spent.sum(skipna=False)


def _devices(steps: pd.Series, sessions: pd.DataFrame | None) -> pd.Series:
    """The world size that each logged step was trained with: of the last session that began before it."""
    devices = pd.Series(float("nan"), index=steps.index)
    if sessions is None or not {"world_size", "resumed_from_step"} <= set(sessions.columns):
        return devices
    for session in sessions.loc[sessions["phase"] == "training"].to_dict("records"):
        devices = devices.mask(steps > session["resumed_from_step"], session["world_size"])
    return devices
