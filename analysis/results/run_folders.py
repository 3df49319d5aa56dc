"""One run's rows of the tables, from what its folder says: checked, typed, and each evaluation once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from analysis.errors import ResultsError
from analysis.laws.compute import training_gmacs

# The one family and the one objective of earlier versions, whose run folders and tables do not name them.
DIT, IDDPM = "DiT", "iddpm"
# Smallest first; Table 1 of the DiT paper.
SIZES = ("S", "B", "L", "XL")

# What one evaluation depends on beside the run and its step.
EVALUATION_KEY_TYPES = {
    "weights": "str",
    "sampler": "str",
    "sampling_steps": "Int64",
    "clip_denoised": "boolean",
    "guidance_scale": "float64",
    "guidance_channels": "Int64",
    "decoder": "str",
    "num_samples": "Int64",
    "labels": "str",
    "reference": "str",
    "extractor": "str",
    "kid_subset_size": "Int64",
}
SCORE_TYPES = dict.fromkeys(
    (
        "fid",
        "fid_percent",
        "fid_infinity",
        "sfid",
        "kid",
        "kid_std",
        "inception_score",
        "inception_score_std",
        "precision",
        "recall",
    ),
    "float64",
)
EVALS_TYPES = {
    "step": "Int64",
    **EVALUATION_KEY_TYPES,
    "extractor_accuracy": "float64",
    **SCORE_TYPES,
    "samples": "str",
}
TRAIN_TYPES = {
    "step": "Int64",
    **dict.fromkeys(("loss", "mse", "vb", "lr", "grad_norm", "images_per_s", "gmacs_spent"), "float64"),
}
SESSIONS_TYPES = {"device": "str", "precision": "str", "commit": "str", "time": "str"}
# Of the recipe's `train`, beside its steps and batch; empty where a run's configuration does not say.
OPTIMISATION_TYPES = dict.fromkeys(("learning_rate", "weight_decay", "ema_decay", "label_dropout"), "float64")
# What model.json says of every family's network, and of those that have such a thing.
COST_KEYS = ("params", "gmacs")
SHAPE_KEYS = ("tokens", "hidden_size", "depth", "num_heads", "input_size")

# Sample i has class i modulo the number of classes, so these are one each of the classes 0 to 9.
GRID_SAMPLES = 10


class RunRecord(Protocol):
    """A run folder as its one reader, `bench.files.run_files`, hands it over: this package imports no `bench`."""

    @property
    def folder(self) -> Path: ...

    @property
    def config(self) -> dict[str, Any]: ...

    @property
    def model(self) -> dict[str, Any]: ...

    @property
    def finished(self) -> str | None: ...

    @property
    def is_failed(self) -> bool: ...

    def lines(self, name: str) -> list[bytes]: ...

    def samples(self, name: str, number: int) -> np.ndarray | None: ...


@dataclass(frozen=True)
class Run:
    """One run: `row` of the runs table, its `train` and `evals` lines, samples (N, C, H, W) uint8.

    `other_evals`: scores of samples that were made with other settings than the recipe's (`ditbench evaluate --run`).
    """

    row: dict[str, Any]
    train: pd.DataFrame
    evals: pd.DataFrame
    samples: np.ndarray | None
    other_evals: pd.DataFrame


def read_run(record: RunRecord) -> Run:
    """What a run has written so far; files that it has not written yet count as empty.

    Raises:
        ResultsError: a line is damaged, or a key is missing.
    """
    evals = _evals(record, "evals.jsonl")
    return Run(_row(record), _train(record), evals, _last_samples(record, evals), _evals(record, "other-evals.jsonl"))


def table_of_lines(record: RunRecord, name: str, types: dict[str, str], required: tuple[str, ...] = ()) -> pd.DataFrame:
    """A .jsonl file, one row per line: the columns of `types`, then whatever else the lines have.

    Raises:
        ResultsError: a line is malformed or lacks a `required` key, or a value has the wrong type.
    """
    path = record.folder / name
    rows = [_line(path, number, line, required) for number, line in enumerate(record.lines(name), 1)]
    if not rows:
        return _no_lines(tuple(types.items())).copy()
    columns: dict[str, Any] = {name: _column(path, name, rows, kind) for name, kind in types.items()}
    others = [name for name in dict.fromkeys(chain.from_iterable(rows)) if name not in types]
    return pd.DataFrame(columns | {name: [row.get(name, np.nan) for row in rows] for name in others})


def value_of(path: Path, content: dict[str, Any], key: str) -> Any:
    """Look up a dotted `key` in what the file `path` says.

    Raises:
        ResultsError: there is no such key.
    """
    value: Any = content
    for name in key.split("."):
        if not isinstance(value, dict) or name not in value:
            raise ResultsError(f"{path}: no key '{key}'")
        value = value[name]
    return value


@cache
def _no_lines(types: tuple[tuple[str, str], ...]) -> pd.DataFrame:
    return pd.DataFrame(columns=[name for name, _ in types]).astype(dict(types))


def _column(path: Path, name: str, rows: list[dict[str, Any]], kind: str) -> Any:
    """The values (N,) of `name`, a missing one where a row has none or null."""
    values = [row.get(name) for row in rows]
    try:
        if kind != "float64":
            return pd.array(values, dtype=kind)  # pyright: ignore[reportArgumentType, reportCallIssue]
        column = np.array(values, dtype=kind)
        if column.ndim == 1:
            return column
    except (TypeError, ValueError) as error:
        raise ResultsError(f"{path}: a value of '{name}' is not of type {kind} ({error})") from error
    raise ResultsError(f"{path}: a value of '{name}' is not of type {kind} (a list)")


def _line(path: Path, number: int, line: bytes, required: tuple[str, ...]) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise ResultsError(f"{path}, line {number}: not JSON ({error}); accepted: an object") from error
    if not isinstance(content, dict):
        raise ResultsError(f"{path}, line {number}: not an object; accepted: one JSON object a line")
    for name in required:
        if name not in content:
            raise ResultsError(f"{path}, line {number}: no '{name}'; needed: {', '.join(required)}")
    return content


def _train(record: RunRecord) -> pd.DataFrame:
    # A resumed run repeats the steps after its checkpoint: the later line counts.
    return table_of_lines(record, "train.jsonl", TRAIN_TYPES, ("step",)).drop_duplicates("step", keep="last")


def _evals(record: RunRecord, name: str) -> pd.DataFrame:
    key = ("step", *EVALUATION_KEY_TYPES)
    evals = table_of_lines(record, name, EVALS_TYPES, key)
    if evals["step"].is_unique:
        return evals
    evals = evals.drop_duplicates([*key, *SCORE_TYPES])
    twice = evals.loc[evals.duplicated(list(key)), "step"].tolist()
    if twice:
        raise ResultsError(f"{record.folder / name}: step {twice[0]} has two scores for one evaluation; accepted: one")
    return evals


def _last_samples(record: RunRecord, evals: pd.DataFrame) -> np.ndarray | None:
    """The first samples of the last evaluated step; None if the file has been cleared away."""
    if evals.empty:
        return None
    name = evals.loc[evals["step"] == evals["step"].max(), "samples"].iloc[0]
    return record.samples(name, GRID_SAMPLES) if isinstance(name, str) else None


def _row(record: RunRecord) -> dict[str, Any]:
    path, config, model = record.folder / "config.yaml", record.config, record.model
    name = str(value_of(path, config, "recipe.model.name"))
    label = str(value_of(path, config, "label")) or name.removeprefix("DiT-")
    cost: dict[str, Any] = {
        key: value_of(record.folder / "model.json", model, key) if model else None for key in COST_KEYS
    }
    steps = int(value_of(path, config, "recipe.train.steps"))
    batch_size = int(value_of(path, config, "recipe.train.batch_size"))
    sessions = table_of_lines(record, "sessions.jsonl", SESSIONS_TYPES)
    return {
        "run": str(value_of(path, config, "id")),
        "sweep": record.folder.parent.name,
        "label": label,
        "family": model.get("family") or DIT,
        "size": _size(config, model, label, name),
        "patch": model.get("patch_size"),
        "model": name,
        "block": config["recipe"]["model"].get("block") or model.get("block") or "",
        "objective": model.get("objective") or IDDPM,
        **cost,
        **{key: model.get(key) for key in SHAPE_KEYS},
        "data": value_of(path, config, "recipe.data.name"),
        "seed": int(value_of(path, config, "recipe.seed")),
        "steps": steps,
        "batch_size": batch_size,
        **{key: config["recipe"]["train"].get(key) for key in OPTIMISATION_TYPES},
        "state": "finished" if record.finished is not None else "failed" if record.is_failed else "unfinished",
        "device": None if sessions.empty else sessions["device"].iloc[-1],
        "precision": None if sessions.empty else sessions["precision"].iloc[-1],
        "commit": None if sessions.empty else sessions["commit"].iloc[-1],
        "starts": len(sessions),
        "started": None if sessions.empty else sessions["time"].iloc[0],
        "finished": record.finished,
        "training_gmacs": training_gmacs(cost["gmacs"], batch_size, steps) if model else None,
        "metrics": json.dumps(model["metrics"], ensure_ascii=False) if model.get("metrics") else None,
    }


def _size(config: dict[str, Any], model: dict[str, Any], label: str, name: str) -> str:
    """The sweep's choice of a size, else the model's own, else that of its preset ("DiT-XL/2"); "" if none says one."""
    # A preset of a family of one's own is `my_file:FAMILY/small`.
    preset = name.partition("/")[2] if ":" in name else name.partition("-")[2].partition("/")[0]
    size = config.get("axes", {}).get("size") or model.get("size") or preset
    if size:
        return str(size)
    # Run folders of earlier versions have no axes, and the digits studies' sizes are named nowhere but in labels.
    first = label.partition("/")[0]
    return first if first in SIZES else ""
