"""Ranks on this machine, by gloo: they share batches, agree, and compute what one process computes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from batches import batches_of, tensors
from ranks import CONTEXT, HANG_SECONDS, on_ranks
from recipes import tiny
from runs import StudyFolder, results, start
from torch import Tensor
from trainings import assert_equal_but_for_the_order_of_sums, last_state, trained, trainer_of

import bench.parallel
import bench.run
import bench.train
from bench.data.digits import DIGITS, Digits
from bench.errors import InputError, RunError
from bench.files import checkpoint, jsonl
from bench.files.atomic import write_json
from bench.files.run_folder import RunLocked, failed_attempts, is_finished, locked, read_error, record_failure
from bench.parallel import SINGLE, Execution, Meeting, Ranks, joined
from bench.recipe import Recipe
from bench.score.fidelity import Scorer
from bench.stopping import Stopped, StopRequest

CPU = torch.device("cpu")
SECOND = Ranks(1, 2, 1)


# What ranks agree on


def _agreements(ranks: Ranks, folder: Path) -> dict[str, Any]:
    here = float(ranks.rank)
    noise = torch.randn(5, generator=torch.Generator().manual_seed(ranks.rank))
    mean = noise.clone()
    ranks.average_(mean)
    if ranks.rank == 3:
        time.sleep(0.5)
    (folder / str(ranks.rank)).touch()
    ranks.wait_for_all()
    return {
        "there": sorted(path.name for path in folder.iterdir()),
        "is_first": ranks.is_first,
        "share": ranks.share(32),
        "maximum": ranks.maximum(here, -here, 2.0**40 + here),
        "total": ranks.total(1, here, 2.0**40 + here),
        "from_first": ranks.from_first({"rank": ranks.rank, "path": folder / str(ranks.rank)}),
        "gathered": ranks.gathered(noise).tolist(),
        "average": mean.tolist(),
    }


def test_four_ranks_agree(tmp_path: Path) -> None:
    noises = [torch.randn(5, generator=torch.Generator().manual_seed(rank)) for rank in range(4)]
    for rank, said in enumerate(on_ranks(4, _agreements, tmp_path)):
        assert said.pop("average") == pytest.approx(torch.stack(noises).mean(0).tolist(), rel=1e-6)
        assert said == {
            "there": ["0", "1", "2", "3"],
            "is_first": rank == 0,
            "share": slice(8 * rank, 8 * rank + 8),
            "maximum": [3, 0, 2.0**40 + 3],
            "total": [4, 6, 2.0**42 + 6],
            "from_first": {"rank": 0, "path": tmp_path / "0"},
            "gathered": [noise.tolist() for noise in noises],
        }


def test_one_process_agrees_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    tensor = torch.tensor([1.0, 2.0])
    with joined("cpu") as ranks:
        assert ranks == SINGLE == Ranks(0, 1, 0)
        ranks.average_(tensor)
        assert (ranks.share(7), ranks.maximum(1, 2), ranks.total(3), ranks.from_first("x")) == (
            slice(0, 7),
            [1, 2],
            [3],
            "x",
        )
        assert ranks.gathered(tensor).tolist() == [[1, 2]]
    assert tensor.tolist() == [1, 2]
    monkeypatch.setenv("WORLD_SIZE", "1")  # as under `srun --ntasks 1`
    with joined("cpu") as ranks:
        assert ranks == SINGLE


def _join(meeting: Meeting, shell: dict[str, str], answer: Any) -> None:
    os.environ |= shell
    with joined("cpu", meeting) as ranks:
        answer.put((ranks.world_size, ranks.total(ranks.rank)))


def test_ranks_meet_whatever_the_shell_has_and_an_earlier_start_left(tmp_path: Path) -> None:
    """A port that another process holds, in the shell's variable and in a file that was left; a name nobody knows."""
    file = tmp_path / "ranks" / "port.json"
    with socket.socket() as held:
        held.bind(("", 0))
        port = held.getsockname()[1]
        write_json(file, {"hosts": ["localhost"], "port": port})
        shell = {"MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": str(port), "WORLD_SIZE": "7"}
        answer = CONTEXT.SimpleQueue()
        meetings = [Meeting(Ranks(rank, 2, rank), file, ("nowhere.invalid", "localhost")) for rank in range(2)]
        processes = [CONTEXT.Process(target=_join, args=(meeting, shell, answer), daemon=True) for meeting in meetings]
        processes[1].start()
        time.sleep(2)  # it finds the file that was left
        processes[0].start()
        for process in processes:
            process.join(HANG_SECONDS)
    assert [answer.get(), answer.get()] == [(2, [1]), (2, [1])]
    assert not file.exists()


def test_a_meeting_of_one_needs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with joined("cpu", Meeting(SINGLE, tmp_path / "port.json")) as ranks:
        assert ranks == SINGLE
    assert not list(tmp_path.iterdir())


def test_a_rank_that_does_not_reach_rank_0_says_what_it_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.parallel, "MEETING_SECONDS", 0.5)
    file = tmp_path / "port.json"
    with pytest.raises(RunError, match=rf"^rank 1 did not reach rank 0 .*{file}"), joined("cpu", Meeting(SECOND, file)):
        pass
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))  # not listening
        port = refusing.getsockname()[1]
        write_json(file, {"hosts": ["localhost"], "port": port})
        said = rf"localhost, port {port}: .*refused"
        with pytest.raises(RunError, match=said), joined("cpu", Meeting(SECOND, file)):
            pass


@pytest.mark.parametrize("missing", ["RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_a_variable_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} - {missing}:
        monkeypatch.setenv(name, "2")
    monkeypatch.delenv(missing, raising=False)
    with pytest.raises(InputError, match=rf"WORLD_SIZE is set, but not {missing}; torchrun"), joined("cpu"):
        pass


def _begin(ranks: Ranks, fails: bool) -> str:
    def work() -> None:
        if fails:
            raise InputError("recipe.yaml: no such file")

    try:
        ranks.do_on_first(work)
    except SystemExit as ended:
        return f"ended with {ended.code}"
    return "went on"


def test_what_the_first_rank_is_refused_ends_the_others_without_a_word() -> None:
    assert on_ranks(3, _begin, False) == ["went on"] * 3
    refused, *others = on_ranks(3, _begin, True)
    assert isinstance(refused, InputError)
    assert others == ["ended with 2"] * 2


# What they compute


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_shares_of_all_ranks_are_the_batch_bit_for_bit(world_size: int) -> None:
    recipe, digits = tiny(train={"label_dropout": 0.5}), Digits(CPU)
    whole = batches_of(recipe, digits)
    parts = [batches_of(recipe, digits, Ranks(rank, world_size)) for rank in range(world_size)]
    for step in (0, 1, 55, 56, 200):
        shares = [tensors(part(step)) for part in parts]
        for tensor, *pieces in zip(tensors(whole(step)), *shares, strict=True):
            assert all(len(piece) == 32 // world_size for piece in pieces)
            assert torch.equal(tensor, torch.cat(pieces))


def _train_on_ranks(ranks: Ranks, recipe: Recipe, folder: Path, micro_batches: int) -> None:
    trained(recipe, folder, micro_batches, ranks)


def test_ranks_and_micro_batches_train_as_one_process_does(tmp_path: Path) -> None:
    recipe = tiny(train={"checkpoint_steps": [], "log_every": 1})
    whole = trained(recipe, tmp_path / "whole", 1)
    reordered = [trained(recipe, tmp_path / f"{pieces}", pieces) for pieces in (2, 4, 8)]
    (tmp_path / "ranks").mkdir()
    assert on_ranks(2, _train_on_ranks, recipe, tmp_path / "ranks", 2) == [None, None]
    assert_equal_but_for_the_order_of_sums(whole, reordered, last_state(recipe, tmp_path / "ranks"))


def _train_and_stop(ranks: Ranks, recipe: Recipe, folder: Path, step: int) -> None:
    bench.train.SECONDS_BETWEEN_AGREEMENTS = 0
    stop = StopRequest()
    digits = Interrupting(step, lambda: setattr(stop, "signal", signal.SIGUSR2))
    trainer = trainer_of(recipe, folder, ranks, dataset=digits, stop=stop)
    with pytest.raises(Stopped):
        trainer.train_until(recipe.train.steps)


@pytest.mark.slow
def test_a_run_may_continue_on_another_number_of_ranks(tmp_path: Path) -> None:
    """From the middle of a window of the log, whose sums were kept rank by rank."""
    recipe = tiny(train={"checkpoint_steps": [], "log_every": 4, "save_every": 100})
    whole = trained(recipe, tmp_path / "whole", 1)
    reordered = [trained(recipe, tmp_path / f"{pieces}", pieces) for pieces in (2, 4, 8)]
    folder = tmp_path / "parts"
    folder.mkdir()
    assert on_ranks(2, _train_and_stop, recipe, folder, 6) == [None, None]
    assert on_ranks(4, _train_on_ranks, recipe, folder, 1) == [None] * 4
    found = last_state(recipe, folder)
    assert [row["step"] for row in jsonl.read(folder / "train.jsonl")] == [4, 8, 12]
    assert_equal_but_for_the_order_of_sums(whole, reordered, found)


def _score(ranks: Ranks, folder: Path, study: Path) -> None:
    bench.run.score(folder, study, Execution(ranks=ranks))


@pytest.mark.slow
def test_samples_and_scores_do_not_depend_on_the_number_of_ranks(study: StudyFolder) -> None:
    """Sharing goes by whole batches, so that not even the order of sums differs."""
    recipe = tiny(evaluation={"batch_size": 16, "num_samples": 70, "labels": "uniform"})
    homes = {world_size: study(f"by-{world_size}") for world_size in (1, 2, 3)}
    bench.run.train(start(recipe, homes[1]), Execution())
    for world_size in (2, 3):
        shutil.copytree(homes[1] / recipe.folder_name, homes[world_size] / recipe.folder_name)
    found = {}
    for world_size, home in homes.items():
        assert not list(home.rglob("samples/*"))
        assert on_ranks(world_size, _score, home / recipe.folder_name, home) == [None] * world_size
        assert is_finished(home / recipe.folder_name)
        (row,) = jsonl.read(home / recipe.folder_name / "scoring-sessions.jsonl")
        assert row["world_size"] == world_size
        found[world_size] = results(home / recipe.folder_name)
    assert len(found[1]["evals.jsonl"]) == 2
    assert found[1] == found[2] == found[3]


# How they stop and fail


class Interrupting(Digits):
    """Digits that do something while this process reads its batch number `when`, from 1."""

    def __init__(self, when: int, action: Callable[[], None]) -> None:
        super().__init__(CPU)
        self._left, self._action = when, action

    def batch(self, indices: Tensor, share: slice, random: torch.Generator) -> tuple[Tensor, Tensor]:
        self._left -= 1
        if self._left == 0:
            self._action()
        return super().batch(indices, share, random)


def read_instead(digits: Digits) -> None:
    """Have the runs of this process read them."""
    pytest.MonkeyPatch().setattr(DIGITS, "load", lambda name, options, device: digits)


def _run(ranks: Ranks, folder: Path, study: Path, signalled: int, seconds_between: float) -> int | None:
    """Run; rank 1 gets a signal while it reads its batch number `signalled`. The step at which it stopped."""
    if ranks.rank == 1:
        digits = Interrupting(signalled, lambda: os.kill(os.getpid(), signal.SIGUSR2))
        read_instead(digits)
    bench.train.SECONDS_BETWEEN_AGREEMENTS = seconds_between
    execution = Execution(ranks=ranks, stop=StopRequest().on(signal.SIGUSR2))
    try:
        bench.run.run(folder, study, execution)
    except Stopped as stopped:
        return int(str(stopped).removeprefix("stopped on request; saved at step "))
    return None


@pytest.mark.slow
def test_one_rank_told_to_stop_stops_all_and_nothing_is_lost(study: StudyFolder) -> None:
    recipe = tiny(
        train={"steps": 60, "checkpoint_steps": [30], "log_every": 8, "save_every": 100}, evaluation={"batch_size": 16}
    )
    never = 10**6
    expected = start(recipe, study("whole"))
    assert on_ranks(2, _run, expected, expected.parent, never, 1.0) == [None, None]

    folder = start(recipe, study("parts"))
    step, same = on_ranks(2, _run, folder, folder.parent, 3, 1.0)
    assert step == same
    assert 3 <= step <= 3 + 8, "agreed on later than after log_every steps"
    target = 21  # inside a window of the log
    assert on_ranks(2, _run, folder, folder.parent, target - step, 0.0) == [target, target]
    saved = checkpoint.load_tensors(folder / "checkpoints" / f"state-{target:08d}.safetensors")[0]
    assert (saved["window.step"], len(saved["window.sums"])) == (16, 2)
    assert not torch.equal(*saved["window.sums"])
    assert on_ranks(2, _run, folder, folder.parent, never, 1.0) == [None, None]

    assert is_finished(folder)
    assert results(folder) == results(expected)
    assert [row["resumed_from_step"] for row in jsonl.read(folder / "sessions.jsonl")] == [0, step, target]
    assert not (folder / "failures.jsonl").exists()


def _run_told_to_stop_while_scoring(ranks: Ranks, folder: Path, study: Path) -> None:
    def score(*arguments: object) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGUSR2)
        return {}

    pytest.MonkeyPatch().setattr(Scorer, "score", score)
    bench.run.run(folder, study, Execution(ranks=ranks, stop=StopRequest().on(signal.SIGUSR2)))


def test_stopped_while_the_first_rank_scores_all_stop(study: StudyFolder) -> None:
    folder = start(tiny(), study("a"))
    ended = on_ranks(2, _run_told_to_stop_while_scoring, folder, folder.parent)
    assert [type(error) for error in ended] == [Stopped, Stopped]
    assert not (folder / "failures.jsonl").exists()


def _run_with_a_fault(ranks: Ranks, folder: Path, study: Path, faulty: int | None) -> None:
    def fail() -> None:
        raise OSError("the data are gone")

    if ranks.rank == faulty:
        digits = Interrupting(5, fail)
        read_instead(digits)
    bench.run.run(folder, study, Execution(ranks=ranks))


@pytest.mark.parametrize("faulty", [0, 1])
def test_a_rank_that_fails_ends_all_and_leaves_its_own_reason(study: StudyFolder, faulty: int) -> None:
    folder = start(tiny(), study("a"))
    ended = on_ranks(2, _run_with_a_fault, folder, folder.parent, faulty)
    assert isinstance(ended[faulty], OSError)
    assert isinstance(ended[1 - faulty], RuntimeError)
    (row,) = jsonl.read(folder / "failures.jsonl")
    assert (row["error"], row["rank"]) == ("OSError: the data are gone", faulty)
    assert "in fail" in row["traceback"]
    assert read_error(folder) == "OSError: the data are gone"


def _run_with_a_death(ranks: Ranks, folder: Path, study: Path, explained: bool) -> None:
    def die() -> None:
        if explained and os.fork() == 0:
            os.closerange(3, 4096)  # with its connections
            time.sleep(1)
            record_failure(folder, "training", "killed for its memory", 1, {"attempt": "7.0"})
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)

    if ranks.rank == 1:
        digits = Interrupting(5, die)
        read_instead(digits)
    bench.run.PEER_SECONDS = 5
    bench.run.run(folder, study, Execution(ranks=ranks, session={"attempt": "7.0"}))


@pytest.mark.slow
@pytest.mark.parametrize("explained", [False, True])
def test_a_rank_that_is_killed_ends_all_and_who_knows_why_has_time_to_say_so(
    study: StudyFolder, explained: bool
) -> None:
    folder = start(tiny(), study("a"))
    survivor, killed = on_ranks(2, _run_with_a_death, folder, folder.parent, explained)
    assert isinstance(killed, EOFError)
    assert isinstance(survivor, RuntimeError)
    (row,) = jsonl.read(folder / "failures.jsonl")
    assert row["error"] == ("killed for its memory" if explained else f"RuntimeError: {survivor}")


def test_a_full_disk_of_the_writing_rank_is_the_reason_of_all(study: StudyFolder) -> None:
    folder = start(tiny(), study("a"))
    (folder / "checkpoints" / "state-00000004.safetensors" / "x").mkdir(parents=True)  # the rename into place fails
    ended = on_ranks(2, _run_with_a_fault, folder, folder.parent, None)
    assert isinstance(ended[0], RunError)
    assert isinstance(ended[1], RuntimeError)
    (row,) = jsonl.read(folder / "failures.jsonl")
    assert row["rank"] == 0
    assert "state-00000004.safetensors: could not be written" in row["error"]


def test_ranks_that_fail_together_are_one_failed_attempt(study: StudyFolder) -> None:
    folder = start(tiny(train={"learning_rate": 1e18}), study("a"))
    ended = on_ranks(2, _run_with_a_fault, folder, folder.parent, None)
    assert [str(error) for error in ended] == [str(ended[0])] * 2
    (attempt,) = failed_attempts(folder)
    assert attempt["error"] == str(ended[0])
    assert "not finite at step" in attempt["error"]
    assert [str(error) for error in on_ranks(2, _run_with_a_fault, folder, folder.parent, None)] == [
        f"failed before: {ended[0]}"
    ] * 2


def test_ranks_that_cannot_start_all_say_why(study: StudyFolder) -> None:
    folder = start(tiny(train={"batch_size": 33}), study("a"))
    with locked(folder):
        ended = on_ranks(2, _run_with_a_fault, folder, folder.parent, None)
    assert [type(error) for error in ended] == [RunLocked] * 2
    assert not (folder / "failures.jsonl").exists()
    for error in on_ranks(2, _run_with_a_fault, folder, folder.parent, None):
        assert isinstance(error, InputError)
        assert "train.batch_size: 33 is not a multiple of 2 ranks" in str(error)
    assert len(failed_attempts(folder)) == 1


@pytest.mark.slow
def test_torchrun_shares_a_run_of_the_command_line(study: StudyFolder) -> None:
    home, recipe = study("a"), tiny(train={"log_every": 4})
    (home / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    ditbench = Path(sys.executable).with_name("ditbench")
    command = [*torchrun, str(ditbench), "run", "recipe.yaml", "--folder", "run"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 0, done.stderr
    assert is_finished(home / "run")
    (session,) = jsonl.read(home / "run" / "sessions.jsonl")
    assert session["world_size"] == 2
    assert [row["step"] for row in jsonl.read(home / "run" / "train.jsonl")] == [4, 6, 8, 12]
    assert [row["step"] for row in jsonl.read(home / "run" / "evals.jsonl")] == [6, 12]
