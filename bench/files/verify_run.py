"""What a run's folder says, compared with itself: hashes, rows, steps, and scores again from the stored samples.

Each check says what was compared, and every mismatch in one line. Nothing in the folder is changed.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.averages import kept_weights, name_of
from bench.data.decoders import Pixels
from bench.data.images import open_images
from bench.data.normalization import KEPT, read_kept
from bench.data.pixels import is_clip, layout
from bench.errors import InputError, RunError
from bench.files.checkpoint import CorruptCheckpoint, load_tensors
from bench.files.run_folder import average_paths, is_finished, read_config, read_content, weights_path
from bench.files.scored import EVALS, SCORES, rows_path, samples_path, whole_rows
from bench.flops import cost_of, training_gmacs
from bench.recipe import Recipe
from bench.recipe.evaluation import EvaluationConfig, Score
from bench.score.evaluate import reference_of, sampling_key
from bench.score.extractors import load_extractor
from bench.score.fidelity import Scorer
from bench.score.search import searched
from models.files.assets import DamagedAsset, FetchError, MissingAsset

# What was compared, and the mismatches.
Check = tuple[str, list[str]]

# More samples than this, or a larger network than the suite trains itself, take long: their scores are left alone.
CHEAP_SAMPLES = 5000
SMALL = ("digits-cnn", "moving-digits-cnn")
CLOSE = 1e-4  # relative: features of another machine, or of a GPU


def verify_run(folder: Path) -> Iterator[Check]:
    """The checks of a run folder, finished or not.

    Raises:
        InputError: no run folder, or its config.yaml is none.
    """
    recipe = read_config(folder)
    yield _identity(recipe, folder)
    yield from _weights(recipe, folder)
    if recipe.data.facts.normalized:
        yield _normalization(folder)
    wanted = recipe.wanted_scores()
    for name, steps in (("train.jsonl", _logged_steps(recipe)), (EVALS, recipe.train.kept_steps())):
        if (folder / name).exists() or is_finished(folder):
            yield _rows(folder / name, [(step, "") for step in steps], is_finished(folder))
    if (folder / SCORES).exists() or (recipe.scores and is_finished(folder)):
        yield _rows(folder / SCORES, [(score.step, score.name) for score in wanted if score.name], is_finished(folder))
    yield _compute(recipe, folder)
    for score in wanted:
        for row in whole_rows(rows_path(folder, score)):
            if (row.get("step"), row.get("score", "")) == (score.step, score.name):
                yield _score_row(recipe, folder, score, row)
                yield _score_again(recipe, folder, score, row)
    yield from _searched(recipe, folder)
    yield _documents(folder)


def _identity(recipe: Recipe, folder: Path) -> Check:
    said, named = read_content(folder).get("id"), folder.resolve().name.rpartition("-")[2]
    problems = []
    if said != recipe.id:
        problems.append(f"{folder / 'config.yaml'}: id is {said}; its recipe's is {recipe.id}")
    if re.fullmatch("[0-9a-f]{10}", named) and named != recipe.id:
        problems.append(f"{folder}: the folder's name ends in {named}; its recipe's id is {recipe.id}")
    return f"{folder}: id {recipe.id} against its recipe", problems


def _weights(recipe: Recipe, folder: Path) -> Iterator[Check]:
    """Checkpoints by their checksums; of a finished run, all that it keeps."""
    checkpoints = folder / "checkpoints"
    paths = sorted(path for path in checkpoints.glob("*.safetensors") if not path.name.startswith("."))
    problems = []
    for path in paths:
        try:
            _, metadata = load_tensors(path)
        except CorruptCheckpoint as error:
            problems.append(str(error))
            continue
        if not path.stem.endswith(f"-{int(metadata.get('step', -1)):08d}"):
            problems.append(f"{path}: says that it is of step {metadata.get('step')}")
        elif "weights" in metadata and path != weights_path(checkpoints, int(metadata["step"]), metadata["weights"]):
            problems.append(f"{path}: says that it is of the weights {metadata['weights']!r}")
        if metadata.get("run", recipe.id) != recipe.id:
            problems.append(f"{path}: says that it is of run {metadata['run']}; its recipe's id is {recipe.id}")
    yield f"{checkpoints}: checksums of {len(paths)} files", problems
    if is_finished(folder):
        kept = kept_weights(recipe.train)
        wanted = [weights_path(checkpoints, step, name) for step, names in kept.items() for name in names]
        missing = [path for path in wanted if not path.exists()]
        yield (
            f"{checkpoints}: {len(wanted)} kept weights of {len(kept)} steps",
            [f"{path}: missing, and the run is finished" for path in missing],
        )


def _normalization(folder: Path) -> Check:
    try:
        read_kept(folder)
        problems = []
    except InputError as error:
        problems = [str(error)]
    return f"{folder / KEPT}: mean and std of its latents by their checksum", problems


def _logged_steps(recipe: Recipe) -> list[int]:
    train = recipe.train
    regular = {*range(train.log_every, train.steps + 1, train.log_every)}
    return sorted(regular | {*range(train.save_every, train.steps + 1, train.save_every)} | {*kept_weights(train)})


def _rows(path: Path, expected: list[tuple[int, str]], finished: bool) -> Check:
    """Each step once, in order, none left out; all of them where the run is finished.

    Of the recipe's `scores`, which have names, each step and name. They may have been added to a run, and taken out of
    its recipe again; those of searches are beside them.
    """
    rows = whole_rows(path)
    found = [(row.get("step"), row.get("score", "")) for row in rows]
    named = path.name == SCORES
    what = f"{path}: {len(found)} rows, {len(expected)} {'scores' if named else 'steps'} of the recipe"
    content = path.read_bytes() if path.exists() else b""
    lines = content.count(b"\n")
    problems = [] if lines == len(rows) else [f"{path}: {lines - len(rows)} lines are not JSON objects"]
    if finished and content and not content.endswith(b"\n"):
        problems.append(f"{path}: the last line is cut short, and the run is finished")
    problems += [f"{path}: {_said(row)} is there {n} times" for row, n in Counter(found).items() if n > 1]
    problems += [f"{path}: {_said(row)} is none of the recipe's" for row in found if not row[1] and row not in expected]
    last = max((step for step, _ in found if isinstance(step, int)), default=0)
    missing = [row for row in expected if row not in found and (finished or (row[0] < last and not named))]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        problems.append(f"{path}: no row of {', '.join(map(_said, missing[:3]))}{more}")
    elif not problems and not named and found != sorted(found, key=lambda row: row[0] or 0):
        problems.append(f"{path}: the steps are not in order")
    return what, problems


def _said(row: tuple[int | None, str]) -> str:
    step, name = row
    return f"step {step}{f', score {name}' if name else ''}"


def _compute(recipe: Recipe, folder: Path) -> Check:
    """model.json, and the compute that each row says was spent, by counting the network again."""
    cost = cost_of(recipe.model.name, recipe.model.architecture())
    gmacs, path = cost.macs / 1e9, folder / "model.json"
    model = _json(path) or {}
    expected = {"params": cost.parameters, "gmacs": gmacs}
    problems = [
        f"{path}: {key} is {model[key]!r}; counted {value!r}"
        for key, value in expected.items()
        if key in model and not math.isclose(model[key], value, rel_tol=1e-9)
    ]
    rows = whole_rows(folder / "train.jsonl")
    for row in rows:
        spent = training_gmacs(gmacs, recipe.train.batch_size, row.get("step", 0))
        if "gmacs_spent" in row and not math.isclose(row["gmacs_spent"], spent, rel_tol=1e-9):
            problems.append(
                f"{folder / 'train.jsonl'}: step {row.get('step')}: gmacs_spent is {row['gmacs_spent']!r}; "
                f"counted {spent!r}"
            )
    return f"{path}: parameters and GMACs, counted again, and the compute of {len(rows)} rows", problems[:3]


def _score_row(recipe: Recipe, folder: Path, score: Score, row: dict[str, Any]) -> Check:
    """A score's key against the recipe, and the samples it is of."""
    path, step, evaluation = rows_path(folder, score), score.step, score.evaluation
    key = {"weights": name_of(evaluation.ema), **sampling_key(evaluation, recipe.diffusion, Pixels.id)}
    if recipe.data.facts.latents:
        del key["decoder"]  # by name and hash, of a file that need not be here
    if evaluation.guide is not None:
        del key["guide"]  # likewise
    said = _said((step, score.name))
    problems = [
        f"{path}: {said}: {name} is {row[name]!r}; the recipe's is {value!r}"
        for name, value in key.items()
        if name in row and row[name] != value
    ]
    missing = [file.name for file in average_paths(folder, recipe.train, step, evaluation.ema) if not file.exists()]
    if missing:
        problems.append(f"{path}: {said} has a score, and no weights in checkpoints/ ({min(missing)})")
    samples = samples_path(folder, step, score.samples)
    if samples.exists():
        problems += _samples(samples, recipe, score, row)
    return f"{path}: {said}: its key, its weights and its samples", problems


def _searched(recipe: Recipe, folder: Path) -> Iterator[Check]:
    """The scores of `ditbench search`, which are none of the recipe's."""
    for row in whole_rows(folder / SCORES):
        where = f"{folder / SCORES}: score {row.get('score')}"
        try:
            score = searched(recipe, row)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            yield (
                where,
                [f"{where}: {error if isinstance(error, ValueError) else f'its key is no whole one ({error})'}"],
            )
            continue
        if score is not None:
            yield _score_row(recipe, folder, score, row)
            yield _score_again(recipe, folder, score, row)


def _samples(path: Path, recipe: Recipe, score: Score, row: dict[str, Any]) -> list[str]:
    number = score.evaluation.num_samples
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        return [f"{path}: {error}"]
    made_from, problems = _made_from(path), []
    shape = recipe.data.facts.image_shape
    if images.dtype != np.uint8 or images.ndim != 1 + len(shape) or len(images) != number:
        wanted = f"{number} {'clips' if is_clip(shape) else 'images'} (N, {layout(shape)[1:]} of uint8"
        problems.append(f"{path}: {images.dtype} of shape {images.shape}; the recipe's are {wanted}")
    elif "content_hash" in made_from and made_from["content_hash"] != open_images(path).content_hash():
        problems.append(f"{path}: other pixels than those whose making is written beside them (content_hash)")
    seed = recipe.seed if score.seed is None else score.seed
    expected = {"run": recipe.id, "seed": seed} | {key: row[key] for key in made_from if key in row}
    problems += [
        f"{path}: made with {key} {made_from[key]!r}; the run and its score have {value!r}"
        for key, value in expected.items()
        if key in made_from and made_from[key] != value
    ]
    return problems


def _made_from(samples: Path) -> dict[str, Any]:
    """What stands beside samples of how they were made: under their whole name, or as earlier versions named it."""
    paths = (samples.with_name(f"{samples.name}.json"), samples.with_suffix(".json"))
    return next((_json(path) or {} for path in paths if path.exists()), {})


def _score_again(recipe: Recipe, folder: Path, score: Score, row: dict[str, Any]) -> Check:
    """A score from the stored samples, where the extractor is small and all that it needs is here."""
    path, samples = rows_path(folder, score), samples_path(folder, score.step, score.samples)
    what = f"{path}: {_said((score.step, score.name))}: "
    if not samples.exists():
        return f"{what}not scored again: its samples have been cleared away", []
    if score.evaluation.num_samples > CHEAP_SAMPLES or not str(row.get("extractor", "")).startswith(SMALL):
        return f"{what}not scored again: {row.get('num_samples')} samples by {row.get('extractor')} take long", []
    try:
        with tempfile.TemporaryDirectory() as aside:
            scorer = _scorer(recipe, score.evaluation, folder.parent, Path(aside))
            other = [key for key in ("reference", "extractor") if scorer.key[key] != row.get(key)]
            if other:
                return f"{what}not scored again: the {' and '.join(other)} here differ", []
            again = scorer.score(open_images(samples), Path(aside) / "samples")
    except (MissingAsset, DamagedAsset, FetchError) as error:
        return f"{what}not scored again: {error}", []
    except (InputError, RunError, ValueError) as error:
        return f"{what}scored again", [f"{what}{error}"]
    compared = [name for name in again if name in row]
    problems = [
        f"{what}{name} is {row[name]!r}; again from its samples {again[name]!r}"
        for name in compared
        if not isinstance(row[name], (int, float)) or not math.isclose(row[name], again[name], rel_tol=CLOSE)
    ]
    return f"{what}{len(compared)} metrics, again from its samples", problems


def _scorer(recipe: Recipe, evaluation: EvaluationConfig, study: Path, aside: Path) -> Scorer:
    """As the run's own; a study that has no trained features is not given any."""
    features = study / "features"
    place = features if features.is_dir() else aside
    extractor = load_extractor(evaluation.extractor, place, offline=True)
    reference = reference_of(recipe, True, evaluation)
    device = torch.device("cpu")
    return Scorer(reference, extractor, evaluation.kid_subset_size, place, device, metrics=evaluation.metrics)


def _documents(folder: Path) -> Check:
    """The JSON files, and that a run is finished at the step that its recipe says."""
    paths = sorted(path for path in folder.rglob("*.json") if not path.name.startswith("."))
    problems = [f"{path}: not a JSON object" for path in paths if _json(path) is None]
    finished = _json(folder / "finished.json") if is_finished(folder) else None
    steps = read_config(folder).train.steps
    if finished is not None and finished.get("step") != steps:
        problems.append(f"{folder / 'finished.json'}: step {finished.get('step')}; the recipe's last is {steps}")
    return f"{folder}: {len(paths)} JSON files", problems


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
