"""What an advice predicts of runs that are still to be made, as a file that says from what it was made."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.advice.advise import Advice, advise
from analysis.advice.laws import LAWS
from analysis.errors import ResultsError
from analysis.laws.choices import Method
from analysis.laws.intervals import Interval
from analysis.laws.observed import collected_observations
from analysis.results.files import write_whole
from analysis.results.tables import WHOLE, Tables, evaluation_keys, load

SUFFIX = ".prediction.json"
CLOSE = 1e-3  # relative: another machine's sums end a fit, and draw its refits, a little elsewhere


@dataclass(frozen=True)
class Question:
    """What was asked of `advise`: so much that it can be asked again."""

    budget_pf_days: float
    metric: str
    laws: tuple[str, ...]
    method: Method
    level: float
    seed: int
    reach: float

    def answered(self, tables: Tables) -> Advice:
        """The advice of `tables`; errors as `collected_observations` and `advise`."""
        rows = collected_observations(tables, self.metric, all_steps=True)
        batch_size = int(tables.runs["batch_size"].iloc[0])
        return advise(
            rows, self.budget_pf_days, batch_size, self.laws, self.method,
            level=self.level, seed=self.seed, reach=self.reach,
        )  # fmt: skip


@dataclass(frozen=True)
class Prediction:
    """Of runs of one model, of their scores at their last step.

    Attributes:
        made: when.
        data: the folder of results that it was made from, and `tables` their files -> SHA-256.
        key: the `evaluation_keys` of the scores that its law was fitted to; empty for a loss.
        model, steps: of all `runs`: recipe id -> seed.
        beyond: how many times the model's longest training `steps` are.
        law: the law's own interval; `single`: that of a single run.
    """

    made: str
    data: str
    tables: Mapping[str, str]
    question: Question
    key: Mapping[str, Any]
    law_name: str
    model: str
    steps: int
    beyond: float
    runs: Mapping[str, int]
    law: Interval
    single: Interval

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        asked = self.question
        return {
            "made": self.made,
            "data": self.data,
            "tables": dict(self.tables),
            "question": {
                "budget_pf_days": asked.budget_pf_days,
                "metric": asked.metric,
                "laws": list(asked.laws),
                "intervals": asked.method,
                "level": asked.level,
                "seed": asked.seed,
                "reach": asked.reach,
            },
            "key": dict(self.key),
            "law": self.law_name,
            "model": self.model,
            "steps": self.steps,
            "beyond": self.beyond,
            "runs": dict(self.runs),
            "prediction": {"law": self.law.to_dict(), "single_run": self.single.to_dict()},
        }

    def differences(self, advice: Advice) -> list[str]:
        """In what an advice, asked the same again, says something else."""
        best = advice.best
        if best is None or (best.model, best.steps) != (self.model, self.steps):
            return [f"{self.model} for {self.steps:,} steps; now {best and f'{best.model} for {best.steps:,}'}"]
        said, again = (self.law, self.single), (best.prediction.law, best.prediction.new_run)
        pairs = [
            (getattr(before, end), getattr(now, end))
            for before, now in zip(said, again, strict=True)
            for end in ("estimate", "low", "high")
        ]
        if all(math.isclose(before, now, rel_tol=CLOSE) for before, now in pairs):
            return []
        return [f"{self.single} for a single run; now {best.prediction.new_run}"]


def predicted(
    advice: Advice, question: Question, tables: Tables, folder: Path, runs: Mapping[str, int], made: str
) -> Prediction:
    """What `advice`, the answer to `question` of the results in `folder`, says of `runs` of the model it advises."""
    best = advice.best
    assert best is not None  # nothing is written without an advice
    return Prediction(
        made,
        folder.as_posix(),
        hashes(folder),
        question,
        {} if question.metric == "loss" else score_key(tables.evals.iloc[0]),
        advice.law.name,
        best.model,
        best.steps,
        best.beyond,
        dict(runs),
        best.prediction.law,
        best.prediction.new_run,
    )


def hashes(folder: Path) -> dict[str, str]:
    """File -> SHA-256 of what results are read from."""
    names = [f"{name}.parquet" for name in sorted(WHOLE)]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def score_key(row: pd.Series) -> dict[str, Any]:
    """The `evaluation_keys` of a score as JSON has them."""
    values = {name: row[name] for name in evaluation_keys}
    return {
        name: None if bool(pd.isna(value)) else value.item() if hasattr(value, "item") else value
        for name, value in values.items()
    }


def write_prediction(prediction: Prediction, path: Path) -> None:
    """As JSON, with a hash of all that it says."""
    content = prediction.to_dict()
    text = json.dumps(content | {"sha256": _hash(content)}, indent=1, allow_nan=False)
    write_whole(path, f"{text}\n".encode())


def read_prediction(path: Path) -> tuple[Prediction, bool]:
    """A prediction, and whether the file still says what was written.

    Raises:
        ResultsError: no such file, or it is none.
    """
    try:
        content = _mapping(json.loads(path.read_bytes()), "it")
        written = content.pop("sha256")
        prediction = _read(content)
    except FileNotFoundError:
        raise ResultsError(
            f"{path}: no such file; `ditbench advise DATA --budget B --write SWEEP.yaml` makes it"
        ) from None
    except KeyError as error:
        raise ResultsError(f"{path}: no key {error}; accepted: what `ditbench advise --write` wrote") from None
    except json.JSONDecodeError as error:
        raise ResultsError(f"{path}: not JSON ({error}); accepted: what `ditbench advise --write` wrote") from None
    except (OSError, ValueError, RecursionError, OverflowError) as error:
        raise ResultsError(f"{path}: {error}; accepted: what `ditbench advise --write` wrote") from None
    return prediction, written == _hash(content)


def remade(prediction: Prediction) -> list[str]:
    """What shows that a prediction is not what its tables say; nothing, if it is.

    Raises:
        ResultsError: its tables are not here, or damaged.
    """
    folder = Path(prediction.data)
    try:
        changed = [name for name, digest in hashes(folder).items() if prediction.tables.get(name) != digest]
    except OSError:
        raise ResultsError(f"{folder}: not here") from None
    if changed:
        return [f"{folder}: {', '.join(changed)} changed after the prediction was made"]
    differences = prediction.differences(prediction.question.answered(load(folder)))
    return [f"the prediction is not what {folder} gives: it says {difference}" for difference in differences]


def _read(content: dict[str, Any]) -> Prediction:
    asked, intervals = (_mapping(content[key], key) for key in ("question", "prediction"))
    known = ("bootstrap", "residual")
    method: Any = _one_of(asked["intervals"], "intervals", known)
    question = Question(
        _number(asked["budget_pf_days"], "budget_pf_days"),
        _text(asked["metric"], "metric"),
        tuple(_one_of(name, "laws", LAWS) for name in _list(asked["laws"], "laws")),
        method,
        _number(asked["level"], "level"),
        _whole(asked["seed"], "seed"),
        _number(asked["reach"], "reach"),
    )
    made = _text(content["made"], "made")
    try:
        datetime.fromisoformat(made)
    except ValueError:
        raise ValueError(f"made is {made!r}, and no time, such as 2026-11-26T09:00:00+00:00") from None
    runs = {run: _whole(seed, f"runs.{run}") for run, seed in _mapping(content["runs"], "runs").items()}
    if not runs:
        raise ValueError("runs: none")
    return Prediction(
        made,
        _text(content["data"], "data"),
        {name: _text(digest, f"tables.{name}") for name, digest in _mapping(content["tables"], "tables").items()},
        question,
        _mapping(content["key"], "key"),
        _text(content["law"], "law"),
        _text(content["model"], "model"),
        _whole(content["steps"], "steps"),
        _number(content["beyond"], "beyond"),
        runs,
        _interval(intervals["law"], "law"),
        _interval(intervals["single_run"], "single_run"),
    )


def _mapping(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{key} is {value!r}, and no mapping")
    return value


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key} is {value!r}, and no list of names")
    return value


def _interval(content: Any, key: str) -> Interval:
    its = _mapping(content, f"prediction.{key}")
    ends = (_number(its[name], f"prediction.{key}.{name}") for name in ("estimate", "low", "high", "level"))
    return Interval(*ends)


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is {value!r}, and no text")
    return value


def _whole(value: Any, key: str) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{key} is {value!r}, and no whole number from 0 on")
    return value


def _number(value: Any, key: str) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{key} is {value!r}, and no finite number")
    return float(value)


def _one_of(value: Any, key: str, accepted: tuple[str, ...]) -> str:
    if value not in accepted:
        raise ValueError(f"{key}: {value!r} is none of {', '.join(accepted)}")
    return value


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
