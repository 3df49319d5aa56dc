"""One run's rows of the tables, from what its folder says: checked, typed, and each evaluation once."""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from analysis.errors import ResultsError
from analysis.laws.compute import training_gmacs
from analysis.results import typed
from analysis.results.sampled import GUIDANCE, with_calls
from analysis.results.typed import ACCEPTED

# The one family and the one objective of earlier versions, whose run folders and tables do not name them.
OF_EARLIER_VERSIONS = {"family": "DiT", "objective": "iddpm"}
# Smallest first; Table 1 of the DiT paper.
SIZES = ("S", "B", "L", "XL")

# What one evaluation depends on beside the run and its step.
EVALUATION_KEY_TYPES = {
    "weights": "str",
    "sampler": "str",
    "sampling_steps": "Int64",
    "network_calls": "Int64",
    "clip_denoised": "boolean",
    "guidance_scale": "float64",
    "guidance_channels": "Int64",
    "guidance_interval": "str",
    "guide": "str",
    "decoder": "str",
    "num_samples": "Int64",
    "labels": "str",
    "reference": "str",
    "extractor": "str",
    "kid_subset_size": "Int64",
    "best_of": "Int64",
}
# Of them, what there may be none of.
CAN_BE_NULL = (*GUIDANCE, "decoder", "kid_subset_size", "best_of")
# And what rows of earlier versions do not say.
KEY_ADDED_LATER = ("network_calls", "guidance_interval", "guide", "best_of")
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
    "post_hoc": "Int64",
    "extractor_accuracy": "float64",
    **SCORE_TYPES,
    "sampling_gmacs": "float64",
    "samples": "str",
}
TRAIN_TYPES = {
    "step": "Int64",
    **dict.fromkeys(("loss", "mse", "vb", "lr", "grad_norm", "images_per_s", "gmacs_spent"), "float64"),
}
SESSIONS_TYPES = {"device": "str", "precision": "str", "commit": "str", "time": "str"}
# Of the recipe's `train`, beside its steps and batch; empty where a run's configuration does not say.
OPTIMISATION_TYPES = dict.fromkeys(("learning_rate", "weight_decay", "ema_decay", "label_dropout"), "float64")
# Of it, what earlier versions did not have, and what they did: that stands where a configuration does not say.
KNOB_TYPES = {
    "clip_grad_norm": "float64",
    "warmup_steps": "Int64",
    "schedule": "str",
    "final_learning_rate": "float64",
    "cooldown_steps": "Int64",
    "decay_matrices_only": "boolean",
    "non_finite": "str",
}
KNOB_DEFAULTS: dict[str, Any] = {
    "clip_grad_norm": None,
    "warmup_steps": 0,
    "schedule": "constant",
    "final_learning_rate": 0.0,
    "cooldown_steps": 0,
    "decay_matrices_only": False,
    "non_finite": "stop",
}
# How a run was trained, beside its data and its steps: runs that differ in one of these are no seeds of one another.
SETTINGS = ("batch_size", *OPTIMISATION_TYPES, *KNOB_TYPES)
RUNS_TYPES = {
    "run": "str",
    "sweep": "str",
    "label": "str",
    "family": "str",
    "size": "str",
    "patch": "Int64",
    "patch_frames": "Int64",
    "model": "str",
    "block": "str",
    "objective": "str",
    "params": "Int64",
    "gmacs": "float64",
    "tokens": "Int64",
    "hidden_size": "Int64",
    "depth": "Int64",
    "num_heads": "Int64",
    "input_size": "Int64",
    "data": "str",
    "seed": "Int64",
    "steps": "Int64",
    "batch_size": "Int64",
    **OPTIMISATION_TYPES,
    **KNOB_TYPES,
    "state": "str",
    "device": "str",
    "precision": "str",
    "commit": "str",
    "starts": "Int64",
    "started": "str",
    "finished": "str",
    "training_gmacs": "float64",
    "metrics": "str",
}
POSITIVE = ("gmacs", "steps", "batch_size")
# What model.json says of every family's network, and of those that have such a thing.
COST_KEYS = ("params", "gmacs")
SHAPE_KEYS = ("patch_frames", "tokens", "hidden_size", "depth", "num_heads", "input_size")

TRAIN, EVALS = "train.jsonl", "evals.jsonl"
# Of the recipe's `scores`, and of samples that anyone made of its weights; a row of the former says which, in `score`.
SCORES, OTHER_EVALS = "scores.jsonl", "other-evals.jsonl"
# With which the name of a score on the few samples of `ditbench search` ends.
SEARCHED = "-search"

# Sample i has class i modulo the number of classes, so these are one each of the classes 0 to 9.
GRID_SAMPLES = 10
# Samples of earlier steps are kept, too, of so many steps at most, if an image is no larger than 32 x 32 in colour.
SAMPLED_STEPS = 6
MOST_BYTES_A_STEP = GRID_SAMPLES * 3 * 32 * 32


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

    def real_images(self, number: int) -> tuple[np.ndarray, int] | None: ...


@dataclass(frozen=True)
class Run:
    """One run: `row` of the runs table, its `train` and `evals` lines.

    samples: step -> (N, C, H, W) uint8, or clips (N, C, T, H, W), the last evaluated step with them or none at all.
    other_evals: scores with other settings than the recipe's `evaluation`: by its `scores` and of searches, then those
    that `ditbench evaluate --run` added.
    """

    folder: Path
    row: dict[str, Any]
    train: pd.DataFrame
    evals: pd.DataFrame
    samples: dict[int, np.ndarray]
    other_evals: pd.DataFrame


def read_run(record: RunRecord) -> Run:
    """What a run has written so far; files that it has not written yet count as empty.

    Raises:
        ResultsError: a line is damaged, or a key is missing.
    """
    evals = _evals(record, EVALS)
    others = _other_evals(record, evals)
    samples = _samples(record, evals)
    return Run(record.folder, _row(record), _train(record), evals, samples, others)


def table_of_lines(record: RunRecord, name: str, types: dict[str, str], required: tuple[str, ...] = ()) -> pd.DataFrame:
    """A .jsonl file, one row per line: the columns of `types`, then whatever else the lines have.

    Raises:
        ResultsError: a line is malformed or lacks a `required` key, or a value has the wrong type.
    """
    columns, others = _columns(record, name, types, required)
    if not columns:
        return _no_lines(tuple(types.items())).copy(deep=False)
    return pd.DataFrame(columns | {key: pd.Series(values, dtype="object") for key, values in others.items()})


def _measured(record: RunRecord, name: str, types: dict[str, str], required: tuple[str, ...]) -> pd.DataFrame:
    """`table_of_lines` of what goes into tables: of its other columns, too, each has one type."""
    path = record.folder / name
    columns, others = _columns(record, name, types, required)
    if not columns:
        return _no_lines(tuple(types.items())).copy(deep=False)
    for key, values in others.items():
        if not typed.fits(key, "str"):
            raise ResultsError(f"{path}: a key is {key!r}; accepted: text")
        columns[key] = typed.column(values, typed.kind_of(values, key, path, _line_of), key, path, _line_of)
    return pd.DataFrame(columns)


def _columns(
    record: RunRecord, name: str, types: dict[str, str], required: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """The columns of `types` in a .jsonl file, checked, and what else its lines have; none where it has no lines."""
    path = record.folder / name
    lines = record.lines(name)
    if not lines:
        return {}, {}
    rows = _objects(lines) or [_line(path, number, line) for number, line in enumerate(lines, 1)]
    values = {key: [row.get(key) for row in rows] for key in dict.fromkeys(chain(types, *rows))}
    for needed in required:
        if None in values[needed]:
            _check_given(path, rows, needed, required)
    columns = {key: typed.column(values.pop(key), kind, key, path, _line_of) for key, kind in types.items()}
    return columns, values


def _line_of(row: int) -> str:
    return f"line {row + 1}"


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


def _objects(lines: list[bytes]) -> list[dict[str, Any]] | None:
    """All lines at once, which takes half the time; None where one may be no object by itself."""
    joined = b"[%b]" % b",\n".join(lines)
    # With one brace a line, at its beginning, no object goes on in the next line, and no line has two.
    if not joined.count(b"{") == joined.count(b"},\n{") + 1 == len(lines) or joined[:2] + joined[-2:] != b"[{}]":
        return None
    try:
        return json.loads(joined)
    except (ValueError, RecursionError):
        return None


def _line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path}, line {number}: not JSON ({error}); accepted: an object") from error
    if not isinstance(content, dict):
        raise ResultsError(f"{path}, line {number}: not an object; accepted: one JSON object a line")
    return content


def _check_given(path: Path, rows: list[dict[str, Any]], name: str, required: tuple[str, ...]) -> None:
    for number, row in enumerate(rows, 1):
        if name not in row or (row[name] is None and name not in CAN_BE_NULL):
            raise ResultsError(f"{path}, line {number}: no '{name}'; needed: {', '.join(required)}")


def _train(record: RunRecord) -> pd.DataFrame:
    # A resumed run repeats the steps after its checkpoint: the later line counts.
    train = _measured(record, TRAIN, TRAIN_TYPES, ("step",))
    return train if train["step"].is_unique else train.drop_duplicates("step", keep="last")


def _evals(record: RunRecord, name: str, others: Iterable[pd.DataFrame] = ()) -> pd.DataFrame:
    """others: beside whose scores those on the few samples of a search are left out, if they have the same key."""
    key = ("step", *EVALUATION_KEY_TYPES)
    evals = _measured(record, name, EVALS_TYPES, tuple(k for k in key if k not in KEY_ADDED_LATER))
    if evals.empty:
        return evals
    evals = with_calls(evals)
    if "score" in evals.columns:
        everything = [table.loc[:, [*key]] for table in (evals, *others) if not table.empty]
        repeated = pd.concat(everything, ignore_index=True).duplicated(keep=False).iloc[: len(evals)].to_numpy()
        evals = evals.loc[~(evals["score"].str.endswith(SEARCHED).fillna(False) & repeated)]
    if evals["step"].is_unique:
        return evals
    evals = evals.drop_duplicates([*key, *SCORE_TYPES])
    twice = evals.loc[evals.duplicated(list(key)), "step"].tolist()
    if twice:
        raise ResultsError(f"{record.folder / name}: step {twice[0]} has two scores for one evaluation; accepted: one")
    return evals


def _other_evals(record: RunRecord, evals: pd.DataFrame) -> pd.DataFrame:
    added = _evals(record, OTHER_EVALS)
    own = _evals(record, SCORES, (evals, added))
    if own.empty:
        return added
    own = own.drop(columns="score", errors="ignore")
    if added.empty:
        return own
    # Scores of the run's own samples once more say nothing new.
    whole = pd.concat([own, added], ignore_index=True)
    return whole.drop_duplicates(["step", *EVALUATION_KEY_TYPES, *SCORE_TYPES], ignore_index=True)


def _samples(record: RunRecord, evals: pd.DataFrame) -> dict[int, np.ndarray]:
    """The first samples of the last evaluated step, none if its file has been cleared away, and of some before it."""
    files = dict(zip(evals["step"].tolist(), evals["samples"].tolist(), strict=True))
    steps = sorted(files)
    last = _read_samples(record, files[steps[-1]]) if steps else None
    if last is None:
        return {}
    earlier: list[int] = []
    if last.nbytes <= MOST_BYTES_A_STEP and len(steps) > 1:
        places = np.linspace(0, len(steps) - 1, min(SAMPLED_STEPS, len(steps)))  # as its author spread them
        earlier = [steps[round(place)] for place in places[:-1]]
    found = {step: _read_samples(record, files[step]) for step in earlier} | {steps[-1]: last}
    return {step: samples for step, samples in found.items() if samples is not None}


def _read_samples(record: RunRecord, name: Any) -> np.ndarray | None:
    return record.samples(name, GRID_SAMPLES) if isinstance(name, str) else None


def label_of(path: Path, config: dict[str, Any]) -> str:
    """A run's label, as its config.yaml `path` says; without one, what its model is called."""
    name = _given(path, config, "recipe.model.name", "str")
    return _checked(path, "label", value_of(path, config, "label"), "str") or name.removeprefix("DiT-")


def _row(record: RunRecord) -> dict[str, Any]:
    path, config, model = record.folder / "config.yaml", record.config, record.model
    model_path = record.folder / "model.json"
    label = label_of(path, config)
    name = _given(path, config, "recipe.model.name", "str")
    steps = _given(path, config, "recipe.train.steps", "Int64")
    batch_size = _given(path, config, "recipe.train.batch_size", "Int64")
    block = _checked(path, "recipe.model.block", config["recipe"]["model"].get("block"), "str")
    train = config["recipe"]["train"]
    cost: dict[str, Any] = {
        key: _given(model_path, model, key, RUNS_TYPES[key]) if model else None for key in COST_KEYS
    }
    shape = {
        column: _checked(model_path, key, model.get(key), RUNS_TYPES[column])
        for column, key in (*zip(SHAPE_KEYS, SHAPE_KEYS, strict=True), ("patch", "patch_size"))
    }
    words = {key: _checked(model_path, key, model.get(key), "str") for key in ("family", "objective", "block", "size")}
    # Of a run that has not started, model.json says nothing yet.
    family, objective = (words[key] or (OF_EARLIER_VERSIONS[key] if model else "") for key in OF_EARLIER_VERSIONS)
    sessions, _ = _columns(record, "sessions.jsonl", SESSIONS_TYPES, ())
    last = {key: sessions[key][-1] if sessions else None for key in ("device", "precision", "commit")}
    row = {
        "run": _given(path, config, "id", "str"),
        # A byte that is no UTF-8 is half of a surrogate pair to Python, which no table can hold.
        "sweep": os.fsencode(record.folder.parent.name).decode("utf-8", "backslashreplace"),
        "label": label,
        "family": family,
        "size": _size(path, config, words["size"], label, name, family),
        "model": name,
        "block": words["block"] or block or "",  # model.json's says what else of the layers is not the paper's
        "objective": objective,
        **cost,
        **shape,
        "data": _given(path, config, "recipe.data.name", "str"),
        "seed": _given(path, config, "recipe.seed", "Int64"),
        "steps": steps,
        "batch_size": batch_size,
        **{
            key: _checked(path, f"recipe.train.{key}", train.get(key, KNOB_DEFAULTS.get(key)), kind)
            for key, kind in (OPTIMISATION_TYPES | KNOB_TYPES).items()
        },
        "state": "finished" if record.finished is not None else "failed" if record.is_failed else "unfinished",
        **last,
        "starts": len(sessions["time"]) if sessions else 0,
        "started": sessions["time"][0] if sessions else None,
        "finished": record.finished,
        "training_gmacs": training_gmacs(cost["gmacs"], batch_size, steps) if model else None,
        "metrics": _metrics(model_path, model.get("metrics")),
    }
    return {name: row[name] for name in RUNS_TYPES}


def _given(path: Path, content: dict[str, Any], key: str, kind: str) -> Any:
    """The value of a dotted `key` that must be there and of the type `kind`."""
    value = _checked(path, key, value_of(path, content, key), kind)
    if value is None or value == "":
        raise ResultsError(f"{path}: '{key}' is {'null' if value is None else 'empty'}; accepted: {ACCEPTED[kind]}")
    if key.rpartition(".")[2] in POSITIVE and not 0 < value < float("inf"):
        raise ResultsError(f"{path}: '{key}' is {value}; accepted: positive numbers")
    return value


def _checked(path: Path, key: str, value: Any, kind: str) -> Any:
    """`value`, which may be null, if it is of the type `kind`."""
    if not typed.fits(value, kind):
        raise ResultsError(f"{path}: '{key}' is {reprlib.repr(value)}; accepted: {ACCEPTED[kind]}")
    return int(value) if kind == "Int64" and value is not None else value


def _metrics(path: Path, metrics: Any) -> str | None:
    """What model.json says of the metrics, as the runs table holds it."""
    if not metrics:
        return None
    text = json.dumps(metrics, ensure_ascii=False)
    described_metrics(text, f"{path}: 'metrics'")
    return text


def described_metrics(text: str, where: str) -> dict[str, dict[str, Any]]:
    """Column of evals -> its title and lower_is_better, from the JSON of the runs table's column metrics.

    Raises:
        ResultsError: it is something else.
    """
    try:
        described = json.loads(text)
        for column, about in described.items():
            if not isinstance(about["title"], str) or not isinstance(about["lower_is_better"], bool):
                raise TypeError(column)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ResultsError(
            f"{where} is {reprlib.repr(text)}; accepted: column -> title (text) and lower_is_better (true or false)"
        ) from None
    return described


def _size(path: Path, config: dict[str, Any], own: str | None, label: str, name: str, family: str) -> str:
    """The sweep's choice of a size, else the model's own, else that of its preset ("DiT-XL/2"); "" if none says one."""
    size = _checked(path, "axes.size", config.get("axes", {}).get("size"), "str") or own or _of_preset(name, family)
    if size:
        return size
    # Run folders of earlier versions have no axes, and the digits studies' sizes are named nowhere but in labels.
    first = label.partition("/")[0]
    return first if first in SIZES else ""


def _of_preset(name: str, family: str) -> str:
    """XL of DiT-XL/2, S of U-ViT-S/2, small of my_file:FAMILY/small; "" of a family's own name."""
    if ":" in name or name == family:
        return name.partition("/")[2]
    rest = name.removeprefix(f"{family}-")
    return (rest if rest != name else name.partition("-")[2]).partition("/")[0]
