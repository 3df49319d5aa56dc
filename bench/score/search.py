"""The best of several ways to sample a run's weights: all scored on few samples, and the chosen one in full.

The few samples are drawn with another seed than the full score's, which so is of samples that nothing was chosen by. It
says of how many it is the best: `best_of`, a part of its key. All rows are in scores.jsonl; those that are there stand.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from math import prod
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from bench import averages
from bench.errors import InputError, RunError
from bench.files import jsonl
from bench.files.run_folder import RunLocked, is_finished, locked, read_config, weights_of
from bench.files.scored import SCORES, SEARCHED, rows_path, whole_rows
from bench.parallel import Execution
from bench.recipe import Recipe
from bench.recipe.evaluation import EvaluationConfig, Score, fit_evaluation
from bench.recipe.training import TrainConfig
from bench.samplers.guide import guide_of_recipe
from bench.schema import BOUND, describe
from bench.score.evaluate import evaluate
from bench.score.metrics import FID_INFINITY_MIN_SAMPLES, MANY_SAMPLES, find_metrics
from bench.score.more_scores import MOST

AXES = ("ema", "guidance_scale", "guidance_channels", "guidance_interval")
"""What is searched: keys of `evaluation`."""
COLUMNS = ("weights", *AXES[1:])
"""The same in rows."""
FEW = 1000
"""Samples of each combination, where nothing else is asked for and the full score has as many."""
OTHER_SEED = 10**9  # what the few samples' seed is more than the run's
_BEST_OF = "best-of-"
_NAME = re.compile(rf"[0-9a-f]+-(?:{SEARCHED}|{_BEST_OF}(?P<best_of>\d+))")


def read_run(folder: Path, step: int | None) -> tuple[Recipe, int]:
    """The recipe of a finished run, and the kept step that is searched; default: the last.

    Raises:
        InputError: no run folder, not finished, or a step that it does not keep.
    """
    recipe = read_config(folder)
    if not is_finished(folder):
        raise InputError(f"{folder}: is not finished; accepted: a run that is trained and scored")
    kept = recipe.train.kept_steps()
    if step is not None and step not in kept:
        raise InputError(f"--step {step}: {folder} does not keep it; accepted: {', '.join(map(str, kept))}")
    return recipe, kept[-1] if step is None else step


def few_scores(recipe: Recipe, step: int, axes: Mapping[str, Sequence[Any]], num_samples: int | None) -> list[Score]:
    """A score on few samples of each combination of what `axes` gives of `AXES`; in all else as `evaluation` says.

    Combinations that differ in nothing, such as intervals of no guidance, are one. Where `evaluation` guides more
    channels than there are, guidance is of all.

    Raises:
        ValueError: `key: what is wrong`, of `evaluation`.
        InputError: there is nothing to choose from, or too much.
    """
    own, train = recipe.evaluation, recipe.train
    most = own.num_samples
    if num_samples is not None and num_samples > most:
        raise ValueError(f"num_samples: {num_samples} is more than the full score has; accepted: at most {most}")
    given = {key: [*values] for key, values in axes.items() if values}
    if "ema" in given:
        given["ema"] = [_kept(one, train) for one in given["ema"]]
    for key, values in given.items():
        for place, value in enumerate(values):
            if value in values[:place]:
                raise ValueError(f"{key}: {_said(key, value)} is given twice")
    scales = {*given.get("guidance_scale", [own.guidance_scale])}
    if scales == {1} and given.keys() & {"guidance_channels", "guidance_interval"}:
        said = "1 is no guidance, which has no channels and no interval; accepted: another"
        raise ValueError(f"guidance_scale: {said}")
    if (own.guidance_channels or 0) > recipe.data.facts.shape[0]:
        given.setdefault("guidance_channels", [None])
    number = prod(map(len, given.values()))
    if number > MOST:
        raise InputError(f"{number} combinations to search; accepted: at most {MOST}")
    found: dict[str, Score] = {}
    for values in itertools.product(*given.values()):
        evaluation = _few(own, dict(zip(given, values, strict=True)), num_samples or min(FEW, most))
        score = _score(recipe, step, evaluation)
        found[score.name] = score
    if len(found) < 2:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in AXES)
        raise InputError(f"one combination leaves nothing to choose; accepted: several values of one of {flags}")
    return [*found.values()]


def full_score(recipe: Recipe, chosen: Score, best_of: int) -> Score:
    """The full score of a chosen combination: with as many samples as `evaluation` has, drawn with the run's seed."""
    return _score(recipe, chosen.step, _changed(recipe.evaluation, _of_axes(chosen.evaluation)), best_of)


def searched(recipe: Recipe, row: Mapping[str, Any]) -> Score | None:
    """The score that a row of scores.jsonl is of, if a search made it.

    Raises:
        ValueError: its key is that of no search of this recipe.
    """
    found = _NAME.fullmatch(str(row.get("score")))
    if found is None:
        return None
    own, interval = recipe.evaluation, row["guidance_interval"]
    changes = {
        "ema": averages.parse(None if row["weights"] == averages.EMA else row["weights"].removeprefix("ema ")),
        "guidance_scale": row["guidance_scale"],
        "guidance_channels": row["guidance_channels"],
        "guidance_interval": interval and tuple(map(float, interval.split(" to "))),
    }
    step, best_of = row["step"], None if found["best_of"] is None else int(found["best_of"])
    if type(step) is not int:
        raise ValueError(f"'step' is {step!r}; accepted: a whole number")
    score = _score(recipe, step, _changed(own, changes) if best_of else _few(own, changes, row["num_samples"]), best_of)
    if (score.name, score.best_of) != (row["score"], row.get("best_of")):
        raise ValueError(f"is named {row['score']}; its key's name is {score.name}")
    return score


def search(
    recipe: Recipe,
    folder: Path,
    few: Sequence[Score],
    device: torch.device,
    execution: Execution,
    say: Callable[[str], object],
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Make what is missing of the `few` scores, and of the full one of the best of them. All ranks must call it.

    say: is told, on rank 0, what is scored next.

    Returns:
        The rows of `few`, the lowest Fréchet distance first, and that of the full score.

    Raises:
        InputError: weights, a guide or a reference that are not there, or rows of other features.
        RunError: as `evaluate`, and that another process works on the run.
        Stopped: on request; what was scored is kept, and so are whole batches of samples.
    """
    ranks = execution.ranks
    for score in few:
        guide_of_recipe(recipe, score.evaluation, execution.offline)
    with ExitStack() as stack:

        def begin() -> None:
            gone = sorted(str(path) for path in weights_of(recipe, folder, few) if not path.exists())
            if gone:
                raise InputError(f"{gone[0]}: is gone; accepted: a run that has the weights of step {few[0].step}")
            try:
                stack.enter_context(locked(folder, "scoring"))
            except RunLocked as error:
                raise RunError(str(error)) from None

        ranks.do_on_first(begin)

        def scored(score: Score, what: str) -> dict[str, Any]:
            row = ranks.from_first(_row(folder, score) if ranks.is_first else None)
            if row is None:
                if ranks.is_first:
                    say(what)
                row = evaluate(recipe, folder, folder.parent, score, device, execution)
                if ranks.is_first and row is not None:
                    jsonl.append(rows_path(folder, score), row)
                row = ranks.from_first(row)
            assert row is not None
            return row

        rows = [
            scored(score, f"{number} of {len(few)}: {in_words(score)}, {score.evaluation.num_samples:,} samples")
            for number, score in enumerate(few, start=1)
        ]
        for key in ("reference", "extractor"):
            if len(values := {str(row[key]) for row in rows}) > 1:
                said = f"the scores of this search differ in {key} ({', '.join(values)})"
                raise InputError(f"{folder / SCORES}: {said}; accepted: one, so take out the rows of the other")
        order = sorted(range(len(few)), key=lambda place: rows[place]["fid"])
        full = full_score(recipe, few[order[0]], len(few))
        row = scored(full, f"in full: {in_words(full)}, {full.evaluation.num_samples:,} samples")
    return [rows[place] for place in order], row


def in_words(score: Score) -> str:
    """ "ema std=0.1, guidance 1.5 on 3 channels at times 200 to 800"."""
    one = score.evaluation
    text = f"{averages.name_of(one.ema)}, guidance {one.guidance_scale:g}"
    if one.guidance_scale == 1:
        return text
    if one.guidance_channels is not None:
        text += f" on {one.guidance_channels} channels"
    return text + (f" at times {_said('guidance_interval', one.guidance_interval)}" if one.guidance_interval else "")


def other_combinations(folder: Path, rows: Sequence[Mapping[str, Any]]) -> int:
    """How many combinations were searched at the step of these rows that are none of theirs."""
    searches = [row for row in whole_rows(folder / SCORES) if str(row.get("score")).endswith(f"-{SEARCHED}")]
    at_step = [row for row in searches if row.get("step") == rows[0]["step"]]
    ways, others = ({tuple(map(row.get, COLUMNS)) for row in each} for each in (rows, at_step))
    return len(others - ways)


def _kept(ema: Any, train: TrainConfig) -> str | None:
    """`averages.checked` of what is written."""
    try:
        parsed = averages.parse(ema)
    except ValueError as error:
        raise ValueError(f"ema: {error}") from None
    return averages.checked(parsed, train, ())


def _row(folder: Path, score: Score) -> dict[str, Any] | None:
    rows = whole_rows(rows_path(folder, score))
    return next((row for row in rows if (row.get("step"), row.get("score")) == (score.step, score.name)), None)


def _score(recipe: Recipe, step: int, evaluation: EvaluationConfig, best_of: int | None = None) -> Score:
    """On few samples, or of the best of so many; ValueError if the evaluation does not fit the recipe."""
    evaluation = fit_evaluation(evaluation, recipe.data, recipe.diffusion, recipe.train, (step,))
    own, samples = recipe.evaluation.samples_id, evaluation.samples_id
    if best_of is not None:  # of the same samples as if the recipe's `scores` had it
        name = f"{evaluation.id}-{_BEST_OF}{best_of}"
        return Score(step, evaluation, name, samples if samples != own else "", best_of=best_of)
    seed = (recipe.seed + OTHER_SEED) % BOUND
    return Score(step, evaluation, f"{evaluation.id}-{SEARCHED}", f"{samples}-{SEARCHED}", seed)


def _few(own: EvaluationConfig, changes: Mapping[str, Any], num_samples: int) -> EvaluationConfig:
    """`own` with changes, on fewer samples: without the metrics that need many, and with subsets of KID to fit."""
    metrics = own.metrics
    if metrics is not None and num_samples < FID_INFINITY_MIN_SAMPLES:
        metrics = tuple(name for name, metric in find_metrics(metrics).items() if MANY_SAMPLES not in metric.needs)
    subset = min(own.kid_subset_size, num_samples)
    return _changed(own, {**changes, "num_samples": num_samples, "metrics": metrics, "kid_subset_size": subset})


def _changed(own: EvaluationConfig, changes: Mapping[str, Any]) -> EvaluationConfig:
    try:
        return type(own).model_validate({**own.model_dump(), **changes})
    except ValidationError as error:
        raise ValueError(describe(error, type(own))) from None


def _of_axes(evaluation: EvaluationConfig) -> dict[str, Any]:
    return {key: getattr(evaluation, key) for key in AXES}


def _said(key: str, value: Any) -> str:
    if key == "guidance_interval":
        return " to ".join(f"{time:g}" for time in value)
    return averages.name_of(value) if key == "ema" else f"{value:g}"
