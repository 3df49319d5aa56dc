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

from bench.data.decoders import Pixels
from bench.data.images import open_images
from bench.data.normalization import KEPT, read_kept
from bench.errors import InputError, RunError
from bench.files import jsonl
from bench.files.checkpoint import CorruptCheckpoint, load_tensors
from bench.files.run_folder import is_finished, read_config, read_content, weights_path
from bench.flops import cost_of, training_gmacs
from bench.recipe import Recipe
from bench.score.evaluate import reference_of, samples_path, sampling_key
from bench.score.extractors import load_extractor
from bench.score.fidelity import Scorer
from models.assets import DamagedAsset, FetchError, MissingAsset

# What was compared, and the mismatches.
Check = tuple[str, list[str]]

# More samples than this, or a larger network than the suite trains itself, take long: their scores are left alone.
CHEAP_SAMPLES = 5000
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
    for name, steps in (("train.jsonl", _logged_steps(recipe)), ("evals.jsonl", recipe.train.kept_steps())):
        if (folder / name).exists() or is_finished(folder):
            yield _rows(folder / name, steps, is_finished(folder))
    yield _compute(recipe, folder)
    for row in _read(folder / "evals.jsonl"):
        if row.get("step") in recipe.train.kept_steps():
            yield _score_row(recipe, folder, row)
            yield _score_again(recipe, folder, row)
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
    yield f"{checkpoints}: checksums of {len(paths)} files", problems
    if is_finished(folder):
        kept = recipe.train.kept_steps()
        missing = [path for step in kept if not (path := weights_path(checkpoints, step)).exists()]
        yield (
            f"{checkpoints}: weights of {len(kept)} kept steps",
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
    return sorted(regular | {*range(train.save_every, train.steps + 1, train.save_every)} | {*train.kept_steps()})


def _rows(path: Path, steps: list[int], finished: bool) -> Check:
    """Each step once, in order, none left out; all of them where the run is finished."""
    rows = _read(path)
    found = [row.get("step") for row in rows]
    what = f"{path}: {len(found)} rows of {len(steps)} steps"
    content = path.read_bytes() if path.exists() else b""
    lines = content.count(b"\n")
    problems = [] if lines == len(rows) else [f"{path}: {lines - len(rows)} lines are not JSON objects"]
    if finished and content and not content.endswith(b"\n"):
        problems.append(f"{path}: the last line is cut short, and the run is finished")
    problems += [f"{path}: step {step} is there {n} times" for step, n in Counter(found).items() if n > 1]
    problems += [f"{path}: step {step} is none of the recipe's" for step in found if step not in steps]
    last = max((step for step in found if isinstance(step, int)), default=0)
    missing = [step for step in steps if step not in found and (finished or step < last)]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        problems.append(f"{path}: no row of step {', '.join(map(str, missing[:3]))}{more}")
    elif not problems and found != sorted(found, key=lambda step: step or 0):
        problems.append(f"{path}: the steps are not in order")
    return what, problems


def _read(path: Path) -> list[dict[str, Any]]:
    """The rows that are whole; `_rows` counts the others."""
    rows = (jsonl.first_row([line]) for line in jsonl.whole_lines(path))
    return [row for row in rows if row is not None]


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
    rows = _read(folder / "train.jsonl")
    for row in rows:
        spent = training_gmacs(gmacs, recipe.train.batch_size, row.get("step", 0))
        if "gmacs_spent" in row and not math.isclose(row["gmacs_spent"], spent, rel_tol=1e-9):
            problems.append(
                f"{folder / 'train.jsonl'}: step {row.get('step')}: gmacs_spent is {row['gmacs_spent']!r}; "
                f"counted {spent!r}"
            )
    return f"{path}: parameters and GMACs, counted again, and the compute of {len(rows)} rows", problems[:3]


def _score_row(recipe: Recipe, folder: Path, row: dict[str, Any]) -> Check:
    """A score's key against the recipe, and the samples it is of."""
    path, step = folder / "evals.jsonl", row["step"]
    key = {"weights": "ema", **sampling_key(recipe.evaluation, Pixels.id)}
    if recipe.data.facts.latents:
        del key["decoder"]  # by name and hash, of a file that need not be here
    problems = [
        f"{path}: step {step}: {name} is {row[name]!r}; the recipe's is {value!r}"
        for name, value in key.items()
        if name in row and row[name] != value
    ]
    if not weights_path(folder / "checkpoints", step).exists():
        problems.append(f"{path}: step {step} has a score, and no weights in checkpoints/")
    samples = samples_path(folder, step)
    if samples.exists():
        problems += _samples(samples, recipe, row)
    return f"{path}: step {step}: its key, its weights and its samples", problems


def _samples(path: Path, recipe: Recipe, row: dict[str, Any]) -> list[str]:
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        return [f"{path}: {error}"]
    made_from, problems = _made_from(path), []
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != recipe.evaluation.num_samples:
        wanted = f"{recipe.evaluation.num_samples} images (N, C, H, W) of uint8"
        problems.append(f"{path}: {images.dtype} of shape {images.shape}; the recipe's are {wanted}")
    elif "content_hash" in made_from and made_from["content_hash"] != open_images(path).content_hash():
        problems.append(f"{path}: other pixels than those whose making is written beside them (content_hash)")
    expected = {"run": recipe.id, "seed": recipe.seed} | {key: row[key] for key in made_from if key in row}
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


def _score_again(recipe: Recipe, folder: Path, row: dict[str, Any]) -> Check:
    """A score from the stored samples, where the extractor is small and all that it needs is here."""
    path, samples = folder / "evals.jsonl", samples_path(folder, row["step"])
    what = f"{path}: step {row['step']}: "
    if not samples.exists():
        return f"{what}not scored again: its samples have been cleared away", []
    if recipe.evaluation.num_samples > CHEAP_SAMPLES or not str(row.get("extractor", "")).startswith("digits-cnn"):
        return f"{what}not scored again: {row.get('num_samples')} samples by {row.get('extractor')} take long", []
    try:
        with tempfile.TemporaryDirectory() as aside:
            scorer = _scorer(recipe, folder.parent, Path(aside))
            other = [key for key in ("reference", "extractor") if scorer.key[key] != row.get(key)]
            if other:
                return f"{what}not scored again: the {' and '.join(other)} here differ", []
            again = scorer.score(open_images(samples), Path(aside) / "samples")
    except (MissingAsset, DamagedAsset, FetchError) as error:
        return f"{what}not scored again: {error}", []
    except (InputError, RunError, ValueError) as error:
        return f"{what}scored again", [f"{path}: step {row['step']}: {error}"]
    compared = [name for name in again if name in row]
    problems = [
        f"{path}: step {row['step']}: {name} is {row[name]!r}; again from its samples {again[name]!r}"
        for name in compared
        if not isinstance(row[name], (int, float)) or not math.isclose(row[name], again[name], rel_tol=CLOSE)
    ]
    return f"{what}{len(compared)} metrics, again from its samples", problems


def _scorer(recipe: Recipe, study: Path, aside: Path) -> Scorer:
    """As the run's own; a study that has no trained features is not given any."""
    evaluation, features = recipe.evaluation, study / "features"
    place = features if features.is_dir() else aside
    extractor = load_extractor(evaluation.extractor, place, offline=True)
    reference = reference_of(recipe, offline=True)
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
