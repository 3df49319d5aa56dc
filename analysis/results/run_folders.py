"""Reading one run folder: what a run has written so far, checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from analysis.errors import ResultsError
from analysis.results.number_lines import number_lines

DIT = "dit"  # the one family of earlier versions, whose run folders and tables do not name it
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
# libyaml's parser where PyYAML was built with it, as its wheels are: ten times as fast.
SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# What model.json says of every family's network, and of those that have such a thing.
COST_KEYS = ("params", "gmacs")
SHAPE_KEYS = ("tokens", "hidden_size", "depth", "num_heads", "input_size")

# Sample i has class i modulo the number of classes, so these are one each of the classes 0 to 9.
GRID_SAMPLES = 10


@dataclass(frozen=True)
class Run:
    """One run folder: `row` of the runs table, its `train` and `evals` lines, samples (N, C, H, W) uint8.

    `other_evals`: scores of samples that were made with other settings than the recipe's (`ditbench evaluate --run`).
    """

    row: dict[str, Any]
    train: pd.DataFrame
    evals: pd.DataFrame
    samples: np.ndarray | None
    other_evals: pd.DataFrame


def read_run(folder: Path) -> Run:
    """Read `folder` as far as its run has come; files that the run has not written yet count as empty.

    Raises:
        ResultsError: a file is damaged, or lacks a key.
    """
    evals = _evals(folder / "evals.jsonl")
    others = _evals(folder / "other-evals.jsonl")
    return Run(_row(folder), _train(folder / "train.jsonl"), evals, _last_samples(folder, evals), others)


def read_lines(path: Path, types: dict[str, str], required: tuple[str, ...] = ()) -> pd.DataFrame:
    """The lines of a .jsonl file, a row each: the columns of `types`, then whatever else the lines have.

    A last line without its newline was torn by a crash and is dropped.

    Raises:
        ResultsError: another line is malformed or lacks a `required` key, or a value has the wrong type.
    """
    content = path.read_bytes() if path.is_file() else b""
    content = content[: content.rfind(b"\n") + 1]
    numbers = number_lines(content, types)
    if numbers is not None and not any(numbers[name].hasnans for name in required):
        return numbers
    rows = [_line(path, number, line, required) for number, line in enumerate(content.split(b"\n")[:-1], 1)]
    if not rows:
        return _no_lines(tuple(types.items())).copy()
    columns: dict[str, Any] = {name: _column(path, name, rows, kind) for name, kind in types.items()}
    others = [name for name in dict.fromkeys(chain.from_iterable(rows)) if name not in types]
    return pd.DataFrame(columns | {name: [row.get(name, np.nan) for row in rows] for name in others})


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


def _train(path: Path) -> pd.DataFrame:
    # A resumed run repeats the steps after its checkpoint: the later line counts.
    return read_lines(path, TRAIN_TYPES, ("step",)).drop_duplicates("step", keep="last")


def _evals(path: Path) -> pd.DataFrame:
    key = ("step", *EVALUATION_KEY_TYPES)
    evals = read_lines(path, EVALS_TYPES, key)
    if evals["step"].is_unique:
        return evals
    evals = evals.drop_duplicates([*key, *SCORE_TYPES])
    twice = evals.loc[evals.duplicated(list(key)), "step"].tolist()
    if twice:
        raise ResultsError(f"{path}: step {twice[0]} has two scores for one evaluation; accepted: one")
    return evals


def _last_samples(folder: Path, evals: pd.DataFrame) -> np.ndarray | None:
    """The first samples of the last evaluated step; None if the file has been cleared away."""
    if evals.empty:
        return None
    name = evals.loc[evals["step"] == evals["step"].max(), "samples"].iloc[0]
    if not isinstance(name, str) or not (folder / name).is_file():
        return None
    try:
        samples = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ResultsError(f"{folder / name}: not a whole .npy array ({error})") from error
    if samples.ndim != 4 or samples.dtype != np.uint8:
        raise ResultsError(
            f"{folder / name}: shape {samples.shape} of {samples.dtype}; accepted: (N, C, H, W) of uint8"
        )
    return np.array(samples[:GRID_SAMPLES])


def _row(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    config = _mapping(path, lambda text: yaml.load(text, SAFE_LOADER))
    name = str(_value(path, config, "recipe.model.name"))
    label = str(_value(path, config, "label")) or name.removeprefix("DiT-")
    model = _model(folder / "model.json")
    steps = int(_value(path, config, "recipe.train.steps"))
    batch_size = int(_value(path, config, "recipe.train.batch_size"))
    sessions = read_lines(folder / "sessions.jsonl", SESSIONS_TYPES)
    return {
        "run": str(_value(path, config, "id")),
        "sweep": folder.parent.name,
        "label": label,
        "family": model.get("family") or config["recipe"]["model"].get("family") or DIT,
        "size": _size(config, model, label, name),
        "patch": model.get("patch_size"),
        "model": name,
        "block": config["recipe"]["model"].get("block") or "",
        **{name: model.get(name) for name in (*COST_KEYS, *SHAPE_KEYS)},
        "data": _value(path, config, "recipe.data.name"),
        "seed": int(_value(path, config, "recipe.seed")),
        "steps": steps,
        "batch_size": batch_size,
        **{name: config["recipe"]["train"].get(name) for name in OPTIMISATION_TYPES},
        "state": _state(folder),
        "device": None if sessions.empty else sessions["device"].iloc[-1],
        "precision": None if sessions.empty else sessions["precision"].iloc[-1],
        "commit": None if sessions.empty else sessions["commit"].iloc[-1],
        "starts": len(sessions),
        "started": None if sessions.empty else sessions["time"].iloc[0],
        "finished": _finished(folder / "finished.json"),
        # Forward and backward pass of every image: the paper's rule for Fig. 9.
        "training_gmacs": 3 * model["gmacs"] * batch_size * steps if model else None,
    }


def _size(config: dict[str, Any], model: dict[str, Any], label: str, name: str) -> str:
    """The sweep's choice of a size, else the model's own, else that of its preset ("DiT-XL/2"); "" if none says one."""
    axes = config.get("axes") or {}
    size = axes.get("size") or model.get("size") or name.partition("-")[2].partition("/")[0]
    if size:
        return str(size)
    # Run folders of earlier versions have no axes, and the digits studies' sizes are named nowhere but in labels.
    first = label.partition("/")[0]
    return first if first in SIZES else ""


def _model(path: Path) -> dict[str, Any]:
    """model.json; empty before the run's first start."""
    if not path.is_file():
        return {}
    model = _mapping(path, json.loads)
    for name in COST_KEYS:
        _value(path, model, name)
    return model


def _finished(path: Path) -> str | None:
    return str(_value(path, _mapping(path, json.loads), "time")) if path.is_file() else None


def _state(folder: Path) -> str:
    if (folder / "finished.json").is_file():
        return "finished"
    return "failed" if (folder / "error.json").is_file() else "unfinished"


def _mapping(path: Path, parse: Any) -> dict[str, Any]:
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise ResultsError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise ResultsError(f"{path}: not a mapping of keys to values")
    return content


def _value(path: Path, content: dict[str, Any], key: str) -> Any:
    """Look up a dotted `key`."""
    value: Any = content
    for name in key.split("."):
        if not isinstance(value, dict) or name not in value:
            raise ResultsError(f"{path}: no key '{key}'")
        value = value[name]
    return value
