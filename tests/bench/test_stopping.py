"""Stopping on request: a signal at any moment loses nothing, and the same call continues to the same result."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import CONTEXT, HANG_SECONDS
from recipes import tiny
from runs import StudyFolder, Undisturbed, last_step, results, start
from torch import Tensor

import bench.score.evaluate
from bench.data.decoders import Pixels
from bench.data.digits import DIGITS, Digits
from bench.data.images import Images
from bench.files import checkpoint, jsonl
from bench.files.run_folder import is_finished
from bench.parallel import Execution
from bench.recipe import Recipe
from bench.run import run, score, train
from bench.score.features import Features
from bench.score.fidelity import Scorer
from bench.stopping import Stopped, StopRequest

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Signals mean afterwards what they meant before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ask() -> None:
    os.kill(os.getpid(), signal.SIGUSR2)


def listening() -> Execution:
    return Execution(stop=StopRequest().on(signal.SIGUSR2, signal.SIGTERM))


class Watched(Digits):
    """Digits, and their decoder, that ask this process to stop at a batch, or a decoding, of these numbers, from 1."""

    def __init__(self, ask_at_batch: int = 0, ask_at_decoding: int = 0) -> None:
        super().__init__(CPU)
        self._ask_at_batch, self._ask_at_decoding = ask_at_batch, ask_at_decoding
        self.read = self.decoded = 0

    id, latent_channels = "pixels", None

    def batch(self, indices: Tensor, share: slice, random: torch.Generator) -> tuple[Tensor, Tensor]:
        self.read += 1
        if self.read == self._ask_at_batch:
            ask()
        return super().batch(indices, share, random)

    def decode(self, x: Tensor) -> Tensor:
        self.decoded += 1
        if self.decoded == self._ask_at_decoding:
            ask()
        return Pixels().decode(x)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Watched], Watched]:
    """Have runs read this data set, and decode with it."""

    def patch(dataset: Watched) -> Watched:
        monkeypatch.setattr(DIGITS, "load", lambda name, options, device: dataset)
        monkeypatch.setattr(bench.score.evaluate, "load_decoder", lambda evaluation, device, offline, latents: dataset)
        return dataset

    return patch


def assert_no_failure(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert not names & {"failures.jsonl", "error.json", "scoring-failures.jsonl", "scoring-error.json"}


def test_a_request_remembers_its_signal() -> None:
    stop = StopRequest().on(signal.SIGUSR2, signal.SIGTERM)
    assert not stop
    assert stop.signal is None
    ask()
    assert stop
    assert stop.signal == signal.SIGUSR2
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.signal == signal.SIGTERM
    assert not StopRequest(), "a request is told to all"


def test_work_that_can_be_interrupted_is_at_once_and_other_work_is_not() -> None:
    stop = StopRequest().on(signal.SIGUSR2)
    reached = []
    with stop.interrupts():
        reached.append("before")
    with pytest.raises(Stopped, match="SIGUSR2"), stop.interrupts():
        reached.append("inside")
        ask()
        reached.append("after the signal")
    assert reached == ["before", "inside"]
    ask()  # outside again: only remembered
    with pytest.raises(Stopped), stop.interrupts():
        reached.append("begun though asked to stop")
    assert reached == ["before", "inside"]


LOGGED_EVERY_5 = tiny(train={"steps": 24, "checkpoint_steps": [12], "log_every": 5, "save_every": 100})


@pytest.mark.parametrize(
    ("step", "window"),
    [(1, 0), (7, 5), (10, None), (12, None), (14, 12), (23, 20), (24, None)],
    ids=["first", "in a window", "at a row", "at a kept step", "after a short window", "last but one", "last"],
)
def test_stopped_in_training_the_very_step_is_saved(
    study: StudyFolder, undisturbed: Undisturbed, use: Callable[[Watched], Watched], step: int, window: int | None
) -> None:
    """`window`: where the unfinished window of the log began; none where a row was written."""
    recipe = LOGGED_EVERY_5
    expected = undisturbed(recipe)
    folder = start(recipe, study("parts"))
    use(Watched(ask_at_batch=step))
    with pytest.raises(Stopped, match=rf"saved at step {step}$"):
        run(folder, folder.parent, listening())
    assert_no_failure(folder)
    assert not is_finished(folder)
    saved = checkpoint.load_tensors(folder / "checkpoints" / f"state-{step:08d}.safetensors")[0]
    assert saved.get("window.step") == (None if window is None else torch.tensor(window))
    assert f"INFO stopped on request; saved at step {step}" in (folder / "log.txt").read_text()
    read = use(Watched())
    run(folder, folder.parent)
    assert read.read == 24 - step, "steps were repeated"
    found = results(folder)
    # 24, stopped at 23, is preceded by 23 instead of 12.
    older = {name for name in expected.keys() ^ found.keys() if name.startswith("state-")}
    assert older <= {"state-00000012.safetensors", f"state-{step:08d}.safetensors"}
    assert {k: v for k, v in found.items() if k not in older} == {k: v for k, v in expected.items() if k not in older}


def test_told_before_it_began_a_run_saves_its_first_step(study: StudyFolder) -> None:
    execution = listening()
    ask()
    folder = start(tiny(), study("a"))
    with pytest.raises(Stopped, match=r"saved at step 1$"):
        run(folder, folder.parent, execution)


def _run_listening(folder: Path, study: Path, said: Any) -> None:
    torch.set_num_threads(1)
    execution = listening()
    try:
        run(folder, study, execution)
    except Stopped as stopped:
        said.send(str(stopped))


@pytest.mark.slow
def test_a_signal_from_outside_at_any_moment_loses_nothing(study: StudyFolder, undisturbed: Undisturbed) -> None:
    """Whatever the process is doing then."""
    recipe = tiny(train={"steps": 400, "checkpoint_steps": [200], "log_every": 7, "save_every": 10_000})
    home = study("stopped")
    folder = start(recipe, home)
    starts = [0]
    for logged in (21, 90):
        ours, theirs = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=_run_listening, args=(folder, home, theirs), daemon=True)
        process.start()
        theirs.close()
        while process.is_alive() and last_step(folder) < logged:
            time.sleep(0.02)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGUSR2)
        process.join(HANG_SECONDS)
        assert process.exitcode == 0
        said = ours.recv()
        if match := re.fullmatch(r"stopped on request; saved at step (\d+)", said):
            starts.append(int(match[1]))
        else:  # it was busy with the samples of 200
            assert said in ("stopped on request while sampling step 200; whole batches are kept", "stopped by SIGUSR2")
            starts.append(200)
        assert (folder / "checkpoints" / f"state-{starts[-1]:08d}.safetensors").exists()
        assert last_step(folder) <= starts[-1]
    assert_no_failure(folder)
    run(folder, home)
    assert [row["resumed_from_step"] for row in jsonl.read(folder / "sessions.jsonl")] == starts
    assert results(folder) == undisturbed(recipe)


SMALL_BATCHES = tiny(train={"checkpoint_steps": []}, evaluation={"batch_size": 7})


def parts(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (folder / "samples").glob(".step-*/*.npy")}


@pytest.mark.parametrize("apart", [False, True], ids=["inline", "job of its own"])
def test_stopped_while_sampling_whole_batches_are_kept(
    study: StudyFolder, undisturbed: Undisturbed, use: Callable[[Watched], Watched], apart: bool
) -> None:
    recipe: Recipe = SMALL_BATCHES
    expected = undisturbed(recipe)
    folder = start(recipe, study("parts"))

    def continue_with(execution: Execution) -> None:
        (score if apart else run)(folder, folder.parent, execution)

    if apart:
        train(folder, Execution())
    use(Watched(ask_at_decoding=3))
    with pytest.raises(Stopped, match=r"while sampling step-00000012\.npy; whole batches are kept"):
        continue_with(listening())
    first = parts(folder)
    assert sorted(first) == [f"{start:08d}-{start + 7:08d}.npy" for start in (0, 7, 14)]
    use(Watched(ask_at_decoding=2))
    with pytest.raises(Stopped):
        continue_with(listening())
    assert len(parts(folder)) == 5
    assert parts(folder).items() >= first.items(), "batches were made again"
    assert_no_failure(folder)
    rest = use(Watched())
    continue_with(Execution())
    assert rest.decoded == 9 - 5
    assert parts(folder) == {}
    assert results(folder) == expected
    assert is_finished(folder)


def test_stopped_while_scoring_only_the_scores_are_made_again(
    study: StudyFolder, undisturbed: Undisturbed, use: Callable[[Watched], Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(SMALL_BATCHES)
    folder = start(SMALL_BATCHES, study("parts"))
    scored: list[Any] = []

    def interrupted(self: Scorer, samples: Images, features: Features) -> dict[str, float]:
        ask()
        scored.append(features)  # never: the signal ends it at once
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "_scores", interrupted)
        with pytest.raises(Stopped, match="stopped by SIGUSR2"):
            run(folder, folder.parent, listening())
    assert scored == []
    assert jsonl.read(folder / "evals.jsonl") == []
    assert_no_failure(folder)
    rest = use(Watched())
    run(folder, folder.parent)
    assert (rest.read, rest.decoded) == (0, 0)
    assert results(folder) == expected
