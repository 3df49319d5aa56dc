"""Out of memory: a run that may goes on with smaller micro-batches, to the same result; another says what to do."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import on_ranks
from recipes import tiny
from runs import StudyFolder, start
from torch import Tensor
from trainings import assert_equal_but_for_the_order_of_sums, last_state, trained

import bench.run
from bench.errors import RunError
from bench.files import jsonl
from bench.files.run_folder import failed_attempts, is_finished, is_trained, read_error
from bench.parallel import Execution, Ranks
from bench.recipe import Recipe
from bench.run import run, train
from bench.stopping import Stopped
from models.transformer import DiT


def pieces(folder: Path) -> int:
    return json.loads((folder / "micro_batches.json").read_text())["micro_batches"]


def mebibytes(key: str) -> int:
    """This process's address space (VmSize), or the most it ever had (VmPeak)."""
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith(key))


# Exhausted in truth


linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")


def large(**train: Any) -> Recipe:
    """A recipe whose activations take some hundred MiB."""
    given = {"steps": 2, "batch_size": 512, "checkpoint_steps": [], **train}
    return tiny(model={"hidden_size": 64, "depth": 2, "patch_size": 1}, train=given)


def _train_where_half_a_batch_fits(ranks: Ranks, folder: Path, trial: Path) -> None:
    """Train in an address space half-way between what half a batch takes and what a whole one takes."""
    os.environ["GLIBC_TUNABLES"] = ""  # what the trials free is given back, not kept (`bench.cpu.memory`)
    train(start(large(steps=1, batch_size=8), trial), Execution())  # loads what is loaded once
    before, taken = mebibytes("VmSize"), []
    for micro_batches in (2, 1):
        trained(large(steps=1), trial / f"{micro_batches}", micro_batches)
        taken.append(mebibytes("VmPeak") - before)
    assert taken[1] - taken[0] > 100, f"too close to each other to tell them apart: {taken} MiB"
    limit = (before + sum(taken) // 2) << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    train(folder, Execution())


@pytest.mark.slow
@linux
def test_a_batch_that_does_not_fit_is_split(tmp_path: Path) -> None:
    recipe = large(allow_accumulation=True)
    folder = start(recipe, tmp_path)
    assert on_ranks(1, _train_where_half_a_batch_fits, folder, tmp_path) == [None]
    assert is_trained(recipe, folder)
    assert pieces(folder) == 2
    assert "can't allocate memory" in json.loads((folder / "micro_batches.json").read_text())["reason"]
    sessions = jsonl.read(folder / "sessions.jsonl")
    assert [(row["micro_batches"], row["resumed_from_step"]) for row in sessions] == [(1, 0), (2, 0)]
    assert "out of memory; going on with 256 images at a time" in (folder / "log.txt").read_text()
    assert not (folder / "failures.jsonl").exists()
    split, found = trained(recipe, tmp_path / "split", 2), last_state(recipe, folder)
    assert all(torch.equal(found[name], tensor) for name, tensor in split.items())


@pytest.mark.slow
@linux
def test_a_batch_that_may_not_be_split_is_refused_by_the_key_that_allows_it(tmp_path: Path) -> None:
    folder = start(large(), tmp_path)
    (error,) = on_ranks(1, _train_where_half_a_batch_fits, folder, tmp_path)
    assert isinstance(error, RunError)
    assert "out of memory with 512 images at a time" in str(error)
    assert "train.allow_accumulation: true" in str(error)
    assert read_error(folder) == str(error)
    assert not (folder / "micro_batches.json").exists()


# Exhausted on purpose


class Limit:
    """A device whose memory holds so many images in training."""

    def __init__(self, images: int, after_step: int = 0) -> None:
        self._images, self._calls_left = images, after_step
        self._forward = DiT.forward

    def forward(self, model: DiT, x: Tensor, *arguments: Tensor) -> Tensor:
        self._calls_left -= model.training
        if model.training and self._calls_left < 0 and len(x) > self._images:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to hold {len(x)} images\nmore")
        return self._forward(model, x, *arguments)


@pytest.fixture
def limited_to(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def limit(images: int, after_step: int = 0) -> None:
        limited = Limit(images, after_step)
        monkeypatch.setattr(DiT, "forward", lambda model, *arguments: limited.forward(model, *arguments))

    return limit


ALLOWED = tiny(train={"allow_accumulation": True, "log_every": 3})


def test_split_batches_train_to_the_same_but_for_the_order_of_sums(
    tmp_path: Path, limited_to: Callable[..., None]
) -> None:
    recipe = tiny(train={"allow_accumulation": True, "log_every": 1, "checkpoint_steps": []})
    whole = trained(recipe, tmp_path / "whole", 1)
    reordered = [trained(recipe, tmp_path / f"{count}", count) for count in (2, 8)]
    folder = start(recipe, tmp_path)
    limited_to(8)
    train(folder, Execution())
    assert pieces(folder) == 4
    assert_equal_but_for_the_order_of_sums(whole, reordered, last_state(recipe, folder))


def test_out_of_memory_in_the_middle_nothing_done_is_lost(study: StudyFolder, limited_to: Callable[..., None]) -> None:
    """As when others share the GPU: after 9 steps there is room for a quarter of the batch."""
    home = study("a")
    folder = start(ALLOWED, home)
    limited_to(8, after_step=9)
    run(folder, home)
    assert is_finished(folder)
    sessions = jsonl.read(folder / "sessions.jsonl")
    assert [(row["micro_batches"], row["resumed_from_step"]) for row in sessions] == [(1, 0), (2, 8), (4, 8)]
    assert [row["step"] for row in jsonl.read(folder / "train.jsonl")] == [3, 4, 6, 8, 9, 12]
    assert [row["step"] for row in jsonl.read(folder / "evals.jsonl")] == [6, 12]
    reason = json.loads((folder / "micro_batches.json").read_text())["reason"]
    assert reason == "CUDA out of memory. Tried to hold 16 images"


def test_the_pieces_are_remembered_by_later_starts(study: StudyFolder, limited_to: Callable[..., None]) -> None:
    folder = start(ALLOWED, study("a"))
    limited_to(16)
    train(folder, Execution())
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    train(folder, Execution())
    assert [row["micro_batches"] for row in jsonl.read(folder / "sessions.jsonl")] == [1, 2, 2]


def test_a_batch_of_one_image_is_not_advised_to_be_split(study: StudyFolder, limited_to: Callable[..., None]) -> None:
    folder = start(tiny(train={"batch_size": 1}), study("a"))
    limited_to(0)
    with pytest.raises(RunError, match=r"out of memory with 1 images at a time, which cannot be halved"):
        train(folder, Execution())


@pytest.mark.parametrize(("batch_size", "images"), [(4, 1), (12, 3)])
def test_a_micro_batch_that_cannot_be_halved_ends_the_run(
    study: StudyFolder, limited_to: Callable[..., None], batch_size: int, images: int
) -> None:
    folder = start(tiny(train={"batch_size": batch_size, "allow_accumulation": True}), study("a"))
    limited_to(0)
    with pytest.raises(RunError, match=rf"out of memory with {images} images at a time, which cannot be halved"):
        train(folder, Execution())
    assert pieces(folder) == batch_size // images
    assert len(failed_attempts(folder)) == 1


def test_other_errors_are_not_taken_for_a_lack_of_memory(study: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = start(ALLOWED, study("a"))
    monkeypatch.setattr(DiT, "forward", lambda *_: torch.ones(2) + torch.ones(3))
    with pytest.raises(RuntimeError, match="size of tensor"):
        train(folder, Execution())
    assert not (folder / "micro_batches.json").exists()


# On several ranks


def _train_limited(ranks: Ranks, folder: Path, limited: tuple[int, ...], late: float) -> None:
    """Train; ranks of `limited` hold 8 images, and rank 1 runs out of them `late` seconds after rank 0."""
    if ranks.rank in limited:
        limit = Limit(8)

        def forward(model: DiT, x: Tensor, *arguments: Tensor) -> Tensor:
            time.sleep(late * ranks.rank)
            return limit.forward(model, x, *arguments)

        pytest.MonkeyPatch().setattr(DiT, "forward", forward)
    bench.run.PEER_SECONDS = 1
    train(folder, Execution(ranks=ranks, max_failures=3))


@pytest.mark.slow
@pytest.mark.parametrize("limited", [(0, 1), (0,), (1,)], ids=["both", "rank 0", "rank 1"])
def test_ranks_start_again_with_half_whoever_ran_out(study: StudyFolder, limited: tuple[int, ...]) -> None:
    folder = start(ALLOWED, study("a"))
    ended = on_ranks(2, _train_limited, folder, limited, 0.5)
    assert all(isinstance(error, Stopped) for error in ended), ended
    assert not (folder / "failures.jsonl").exists()
    assert pieces(folder) == 2
    assert on_ranks(2, _train_limited, folder, limited, 0.0) == [None, None]
    assert is_trained(ALLOWED, folder)
    assert [row["micro_batches"] for row in jsonl.read(folder / "sessions.jsonl")] == [1, 2]
