"""Losses and gradients that are not finite, by the recipe's policy: skipped, rolled back, and resumed bit for bit."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import on_ranks
from recipes import tiny
from torch import Tensor
from trainings import assert_same, trainer_of

import bench.train
from bench.data.digits import Digits
from bench.errors import RunError
from bench.files import checkpoint, jsonl
from bench.parallel import SINGLE, Ranks
from bench.recipe import Recipe
from bench.stopping import Stopped, StopRequest
from bench.train import Trainer
from bench.training.not_finite import MOST_ROLL_BACKS, MOST_SKIPPED

CPU = torch.device("cpu")
EVERY_KNOB: dict[str, Any] = {
    "clip_grad_norm": 0.5,
    "warmup_steps": 5,
    "schedule": "cooldown",
    "cooldown_steps": 4,
    "weight_decay": 0.1,
    "decay_matrices_only": True,
}


class Broken(Digits):
    """Digits of which the batches of these numbers, from 0, are not finite, whenever they are read."""

    def __init__(self, *bad: int, recipe: Recipe) -> None:
        super().__init__(CPU)
        probe = trainer_of(recipe, Path())
        self._bad = [probe._batches._indices(batch).tolist() for batch in bad]
        self.read: list[int] = []

    def batch(self, indices: Tensor, share: slice, random: torch.Generator) -> tuple[Tensor, Tensor]:
        x0, labels = super().batch(indices, share, random)
        if indices.tolist() in self._bad:
            self.read.append(self._bad.index(indices.tolist()))
            x0 = x0.clone()
            x0[-1] = torch.nan  # of the last rank alone
        return x0, labels


def trainer(recipe: Recipe, folder: Path, *bad: int, ranks: Ranks = SINGLE, stop_after: int | None = None) -> Trainer:
    """Resumed; it is asked to stop in step `stop_after`."""
    folder.mkdir(exist_ok=True)
    stop = StopRequest()
    made = trainer_of(recipe, folder, ranks, dataset=Broken(*bad, recipe=recipe), stop=stop)
    made.resume(at_most=recipe.train.steps)
    if stop_after is not None:
        take = made.take_step

        def take_and_ask() -> None:
            if made.step == stop_after - 1:
                stop.signal = signal.SIGTERM
            take()

        made.take_step = take_and_ask
    return made


def last(folder: Path) -> tuple[int, dict[str, Tensor]]:
    found = checkpoint.load_newest_state(folder / "checkpoints", at_most=10**6)
    assert found is not None
    return found


def rows(folder: Path, name: str = "train.jsonl") -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in ("images_per_s", "time")} for row in jsonl.read(folder / name)]


def disturbed(recipe: Recipe, folder: Path, *bad: int, stops: tuple[int, ...]) -> None:
    """Train, stopped on request in each of these steps and started anew, and killed after the last of them."""
    for step in stops:
        with pytest.raises(Stopped):
            trainer(recipe, folder, *bad, stop_after=step).train_until(recipe.train.steps)
    trainer(recipe, folder, *bad).train_until(recipe.train.steps)


@pytest.mark.parametrize("knobs", [{}, EVERY_KNOB, {"schedule": "cosine", "warmup_steps": 3}])
@pytest.mark.parametrize("stop", [4, *(pytest.param(stop, marks=pytest.mark.slow) for stop in (1, 9))])
def test_every_knob_resumes_bit_for_bit(tmp_path: Path, knobs: dict[str, Any], stop: int) -> None:
    """In warm-up, at its end, and in the cooldown."""
    recipe = tiny(train=knobs)
    trainer(recipe, tmp_path / "whole").train_until(12)
    disturbed(recipe, tmp_path / "parts", stops=(stop,))
    assert_same(last(tmp_path / "whole")[1], last(tmp_path / "parts")[1])
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")


# skip


def skipping(**train: Any) -> Recipe:
    return tiny(train={"non_finite": "skip", "checkpoint_steps": [], **train})


def test_a_skipped_step_leaves_all_as_it_was(tmp_path: Path) -> None:
    run = trainer(skipping(clip_grad_norm=0.5), tmp_path / "run", 3)
    run.train_until(3)
    before = {name: t.clone() for name, t in run._state().items() if name.partition(".")[0] not in ("window", "skips")}
    run.train_until(4)
    after = last(tmp_path / "run")[1]
    assert before.keys() <= after.keys()
    assert_same(before, {name: after[name] for name in before})
    assert after["skips"].tolist() == [1, 1]
    assert rows(tmp_path / "run")[1]["skipped"] == 1


def test_after_a_skipped_step_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    """Against a run whose first update is that of the second batch: Adam counts one update in both."""
    run = trainer(skipping(learning_rate=1e-3), tmp_path / "run", 0)
    run.train_until(2)
    other = trainer(skipping(learning_rate=1e-3), tmp_path / "other")
    other.step = 1
    other.take_step()
    ours, theirs = run._state(), other._state()
    for name in ours:
        if name.partition(".")[0] not in ("window", "skips"):
            assert torch.equal(ours[name], theirs[name]), name


def test_where_all_is_finite_skipping_changes_nothing(tmp_path: Path) -> None:
    trainer(tiny(), tmp_path / "stop").train_until(12)
    trainer(tiny(train={"non_finite": "skip"}), tmp_path / "skip").train_until(12)
    found = last(tmp_path / "skip")[1]
    assert found.pop("skips").tolist() == [0, 0]
    assert_same(last(tmp_path / "stop")[1], found)
    skipped = rows(tmp_path / "skip")
    assert [row.pop("skipped") for row in skipped] == [0] * len(skipped)
    assert skipped == rows(tmp_path / "stop")


def test_the_log_has_the_means_of_the_steps_that_were_taken(tmp_path: Path) -> None:
    trainer(skipping(log_every=1), tmp_path / "each", 1, 4, 5).train_until(12)
    trainer(skipping(log_every=3, save_every=6), tmp_path / "run", 1, 4, 5).train_until(12)
    each, found = rows(tmp_path / "each"), rows(tmp_path / "run")
    assert [row["skipped"] for row in each] == [0, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 3]
    assert [row["skipped"] for row in found] == [1, 3, 3, 3]
    for k, row in enumerate(found):
        for column in ("loss", "mse", "vb", "grad_norm"):
            values = [step[column] for step in each[3 * k : 3 * k + 3] if step[column] is not None]
            assert row[column] == pytest.approx(sum(values) / len(values), rel=1e-5)
    assert [row["step"] for row in each if row["loss"] is None] == [2, 5, 6]


@pytest.mark.parametrize("stop", [4, 5, 6, 7])
def test_a_run_with_skipped_steps_resumes_bit_for_bit(tmp_path: Path, stop: int) -> None:
    recipe = skipping(**EVERY_KNOB, log_every=4, save_every=8)
    trainer(recipe, tmp_path / "whole", 1, 4, 5).train_until(12)
    disturbed(recipe, tmp_path / "parts", 1, 4, 5, stops=(stop,))
    assert_same(last(tmp_path / "whole")[1], last(tmp_path / "parts")[1])
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    assert rows(tmp_path / "whole")[-1]["skipped"] == 3


def test_a_run_that_only_skips_ends_with_an_error(tmp_path: Path) -> None:
    all_of_them = range(400)
    with pytest.raises(RunError, match=r"run: .*in the 12 steps up to 12, which train\.non_finite: skip"):
        trainer(skipping(), tmp_path / "run", *all_of_them).train_until(12)
    long = skipping(steps=400, log_every=40, save_every=400)
    with pytest.raises(RunError, match=r"in the 120 steps up to 120,"):  # at the first row after so many
        trainer(long, tmp_path / "long", *all_of_them).train_until(400)
    assert 80 < MOST_SKIPPED <= 120


# roll back


def rolling_back(**train: Any) -> Recipe:
    return tiny(train={"non_finite": "roll-back", "checkpoint_steps": [6], **train})


def test_a_failed_span_is_passed_over_and_its_rows_are_cut(tmp_path: Path) -> None:
    """Batch 9, of step 10, is not finite: back to step 8, and on with the batches after it."""
    run = trainer(rolling_back(), tmp_path / "run", 9)
    run.train_until(12)
    assert [row["step"] for row in rows(tmp_path / "run")] == [2, 4, 6, 8, 10, 12]
    assert [row["roll_backs"] for row in rows(tmp_path / "run")] == [0, 0, 0, 0, 1, 1]
    assert rows(tmp_path / "run", "roll-backs.jsonl") == [{"step": 8, "failed_step": 10, "first_step": 10}]

    other = trainer(rolling_back(), tmp_path / "other")
    other.train_until(8)
    other._batches._batch_of = lambda step: step + 2
    other.train_until(12)
    assert_same(last(tmp_path / "run")[1], last(tmp_path / "other")[1])
    strip = [{k: v for k, v in row.items() if k != "roll_backs"} for row in rows(tmp_path / "run")]
    assert strip == [{k: v for k, v in row.items() if k != "roll_backs"} for row in rows(tmp_path / "other")]


def test_before_the_first_save_a_run_goes_back_to_its_first_weights(tmp_path: Path) -> None:
    run = trainer(rolling_back(checkpoint_steps=[], save_every=100), tmp_path / "run", 1)
    initial = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    state = checkpoint.load_newest_state(tmp_path / "run" / "checkpoints", 0)
    assert state is None
    run.train_until(2)
    assert [row["step"] for row in rows(tmp_path / "run", "roll-backs.jsonl")] == [0]
    state = checkpoint.load_newest_state(tmp_path / "run" / "checkpoints", 0)
    assert state is not None
    for name, value in initial.items():
        if f"model.{name}" in state[1]:
            assert torch.equal(state[1][f"model.{name}"], value)
    assert [row["step"] for row in rows(tmp_path / "run")] == [2]


@pytest.mark.parametrize(
    "stops",
    [
        *((10,), (9, 9, 9)),
        *(pytest.param(stops, marks=pytest.mark.slow) for stops in [(9,), (11,), (5, 7, 9, 11), (1, 3)]),
    ],
)
def test_a_run_that_rolls_back_resumes_bit_for_bit(tmp_path: Path, stops: tuple[int, ...]) -> None:
    """Stopped in the failed span, where it is noticed, and after it; so often, too, that many states were saved."""
    recipe = rolling_back(**EVERY_KNOB, log_every=3, save_every=6, steps=14, checkpoint_steps=[])
    bad = (7, 13)
    trainer(recipe, tmp_path / "whole", *bad).train_until(14)
    assert len(rows(tmp_path / "whole", "roll-backs.jsonl")) == 2
    disturbed(recipe, tmp_path / "parts", *bad, stops=stops)
    assert_same(last(tmp_path / "whole")[1], last(tmp_path / "parts")[1])
    for name in ("train.jsonl", "roll-backs.jsonl"):
        assert rows(tmp_path / "whole", name) == rows(tmp_path / "parts", name)
    for file in sorted((tmp_path / "whole" / "checkpoints").glob("ema-*")):
        assert file.read_bytes() == (tmp_path / "parts" / "checkpoints" / file.name).read_bytes()


@pytest.mark.parametrize("killed", ["drop_states_after", "append", "load_newest_state", "cut_after"])
@pytest.mark.parametrize("before", [True, False])
def test_killed_while_it_rolls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: str, before: bool) -> None:
    """Before or after each thing that a roll-back does to the folder."""
    recipe = rolling_back(log_every=3, save_every=6)
    trainer(recipe, tmp_path / "whole", 7).train_until(12)

    class Killed(Exception):
        pass

    def kills(real: Callable[..., Any], when: Callable[..., bool]) -> Callable[..., Any]:
        def killing(*arguments: Any) -> Any:
            if not when(*arguments):
                return real(*arguments)
            if not before:
                real(*arguments)
            raise Killed

        return killing

    with monkeypatch.context() as patch:
        run = trainer(recipe, tmp_path / "parts", 7)
        module: Any = jsonl if hasattr(jsonl, killed) else checkpoint
        is_meant = (lambda path, row: path.name == "roll-backs.jsonl") if killed == "append" else (lambda *_: True)
        patch.setattr(module, killed, kills(getattr(module, killed), is_meant))
        with pytest.raises(Killed):
            run.train_until(12)
    trainer(recipe, tmp_path / "parts", 7).train_until(12)
    assert_same(last(tmp_path / "whole")[1], last(tmp_path / "parts")[1])
    for name in ("train.jsonl", "roll-backs.jsonl"):
        assert rows(tmp_path / "whole", name) == rows(tmp_path / "parts", name)


def test_a_damaged_state_after_a_roll_back_is_made_again_from_the_one_before(tmp_path: Path) -> None:
    """The steps before the one that was gone back to take the batches that they took."""
    recipe = rolling_back(checkpoint_steps=[], save_every=4)
    trainer(recipe, tmp_path / "whole", 9).train_until(12)
    trainer(recipe, tmp_path / "parts", 9).train_until(10)
    newest = tmp_path / "parts" / "checkpoints" / "state-00000008.safetensors"
    newest.write_bytes(newest.read_bytes()[:-10])
    again = trainer(recipe, tmp_path / "parts", 9)
    assert again.step == 4
    again.train_until(12)
    assert_same(last(tmp_path / "whole")[1], last(tmp_path / "parts")[1])
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")


def test_a_run_that_always_fails_ends_with_an_error_and_stays_whole(tmp_path: Path) -> None:
    recipe = rolling_back(checkpoint_steps=[])
    with pytest.raises(RunError, match=r"not finite at step 5; rolled back to step 4 3 times before"):
        trainer(recipe, tmp_path / "run", *range(6, 56)).train_until(12)
    assert [row["step"] for row in rows(tmp_path / "run", "roll-backs.jsonl")] == [4] * MOST_ROLL_BACKS
    step, state = last(tmp_path / "run")
    assert step == 4
    assert all(tensor.isfinite().all() for tensor in state.values())


# ranks


def _trained_on_ranks(ranks: Ranks, recipe: Recipe, folder: Path, bad: tuple[int, ...], stop: int | None) -> int:
    bench.train.SECONDS_BETWEEN_AGREEMENTS = 0
    run = trainer(recipe, folder, *bad, ranks=ranks, stop_after=stop)
    with contextlib.suppress(Stopped):
        run.train_until(12)
    return run.step


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [skipping(log_every=3), rolling_back(log_every=3)])
def test_what_one_rank_alone_meets_all_act_on(tmp_path: Path, recipe: Recipe) -> None:
    """As one process does: the same steps skipped or rolled back, the same losses but for the order of sums."""
    bad = (1, 7)
    trainer(recipe, tmp_path / "one", *bad).train_until(12)
    (tmp_path / "two").mkdir()
    assert on_ranks(2, _trained_on_ranks, recipe, tmp_path / "two", bad, None) == [12, 12]
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for column in ("loss", "grad_norm", "skipped", "roll_backs"):
        if column in one[0]:
            assert [row[column] for row in one] == pytest.approx([row[column] for row in two], rel=1e-3)
    assert rows(tmp_path / "one", "roll-backs.jsonl") == rows(tmp_path / "two", "roll-backs.jsonl")
    (tmp_path / "parts").mkdir()
    assert len(set(on_ranks(2, _trained_on_ranks, recipe, tmp_path / "parts", bad, 5))) == 1
    assert on_ranks(2, _trained_on_ranks, recipe, tmp_path / "parts", bad, None) == [12, 12]
    assert_same(last(tmp_path / "two")[1], last(tmp_path / "parts")[1])
    assert rows(tmp_path / "two") == rows(tmp_path / "parts")


# what a recipe's id says


def test_where_a_run_goes_back_to_is_in_its_id() -> None:
    for key, value in (("log_every", 3), ("save_every", 5)):
        assert tiny(train={key: value}).id == tiny().id
        assert rolling_back(**{key: value}).id != rolling_back().id
    assert rolling_back(allow_accumulation=True).id == rolling_back().id
