"""Trackers: what they hold, read back by other means, is what the metric files hold; and they cannot harm a run."""

from __future__ import annotations

import json
import logging
import os
import pty
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes import tiny

from bench import trackers
from bench.errors import InputError, RunError
from bench.files import jsonl
from bench.trackers import TRACKERS, Tracker, check_installed, open_trackers

ROOT = Path(__file__).parents[2]
BATCH_JOB = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/support'}"}


def train_row(step: int, session: int = 0) -> dict[str, Any]:
    """Numbers that float32 cannot hold, and that another session would measure otherwise."""
    return {"step": step, "loss": 0.1 / step, "grad_norm": 3, "images_per_s": 100.0 + step + session / 7}


def eval_row(step: int) -> dict[str, Any]:
    return {"step": step, "sampler": "ddpm", "clip_denoised": True, "guidance_channels": None, "fid": 1e3 / 7 - step}


TRAIN_NAMES, EVAL_NAMES = ["loss", "grad_norm", "images_per_s"], ["fid"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "my study" / "S-4-0123456789"
    folder.mkdir(parents=True)
    return folder


def note(folder: Path, opened: list[Tracker], row: dict[str, Any]) -> None:
    """As a run does: the metric file, then the trackers."""
    jsonl.append(folder / ("evals.jsonl" if "fid" in row else "train.jsonl"), row)
    for tracker in opened:
        tracker.log(row)


def close(opened: list[Tracker]) -> None:
    for tracker in opened:
        tracker.close()


def cut_after_a_crash(folder: Path, step: int) -> None:
    """As a resumption does; both trackers name their files by the second, and restarts are not that fast."""
    jsonl.cut_after(folder / "train.jsonl", step)
    time.sleep(1.01 - time.time() % 1)


# --- names and packages ---


def test_an_unknown_name_is_refused_with_the_accepted_ones(folder: Path) -> None:
    for use in (check_installed, lambda names: open_trackers(names, folder, tiny(), 0)):
        with pytest.raises(InputError, match="unknown tracker 'mlflow'; accepted: tensorboard, wandb"):
            use(["tensorboard", "mlflow"])
    assert list(folder.iterdir()) == []


def test_no_names_are_no_trackers(folder: Path) -> None:
    check_installed([])
    assert open_trackers([], folder, tiny(), 0) == []


def test_what_is_installed_is_accepted_and_not_imported() -> None:
    code = """if True:
        import sys
        from bench.trackers import TRACKERS, check_installed
        check_installed(TRACKERS)
        print(*{"torch", *TRACKERS} & set(sys.modules))
    """
    assert subprocess.run([sys.executable, "-c", code], env=BATCH_JOB, capture_output=True, check=True).stdout == b"\n"


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_named_with_its_extra_even_if_a_folder_has_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    code = f"""if True:
        from importlib.util import find_spec
        from bench.errors import InputError
        from bench.trackers import check_installed
        assert find_spec("{name}")
        try:
            check_installed(["{name}"])
        except InputError as error:
            print(error)
    """
    # -S: without site-packages, where the trackers are installed.
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, env=BATCH_JOB, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f'tracker {name}: not installed; install it with: uv pip install "ditbench[{name}]"\n'


# --- TensorBoard ---


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: by name, (step, value) in order."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def shown(train: list[dict[str, Any]], evals: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """What it ought to show."""
    expected = {}
    for kind, names, rows in (("train", TRAIN_NAMES, train), ("eval", EVAL_NAMES, evals)):
        for name in names:
            expected[f"{kind}/{name}"] = [(row["step"], float(np.float32(row[name]))) for row in rows]
    return expected


def test_tensorboard_shows_the_numbers_of_the_rows_and_nothing_else(folder: Path) -> None:
    train, evals = [train_row(step) for step in range(2, 42, 2)], [eval_row(step) for step in (6, 40)]
    opened = open_trackers(["tensorboard", "tensorboard"], folder, tiny(), 0)
    assert len(opened) == 1
    for row in [*train, *evals]:
        note(folder, opened, row)
    close(opened)
    assert scalars(folder) == shown(train, evals)


def test_tensorboard_shows_a_step_once_after_a_resumption_before_it(folder: Path) -> None:
    first, evals = [train_row(step) for step in range(2, 12, 2)], [eval_row(step) for step in (2, 6)]
    opened = open_trackers(["tensorboard"], folder, tiny(), 0)
    for row in [*first, *evals]:
        note(folder, opened, row)
    # No close: the process was killed. The state of step 6 was spoilt, its score was not.
    cut_after_a_crash(folder, 4)
    again = [train_row(step, session=1) for step in range(6, 12, 2)]
    resumed = open_trackers(["tensorboard"], folder, tiny(), 4)
    for row in [*again, eval_row(10)]:
        note(folder, resumed, row)
    close(resumed)
    assert scalars(folder) == shown([*first[:2], *again], [*evals, eval_row(10)])
    close(opened)


def test_a_tensorboard_that_is_open_meanwhile_drops_what_is_repeated(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    opened = open_trackers(["tensorboard"], folder, tiny(), 0)
    for step in (2, 4, 6, 8):
        note(folder, opened, train_row(step))
    close(opened)
    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("train/loss")] == [2, 4, 6, 8]
    cut_after_a_crash(folder, 4)
    resumed = open_trackers(["tensorboard"], folder, tiny(), 4)
    note(folder, resumed, train_row(6))
    close(resumed)
    assert [event.step for event in board.Reload().Scalars("train/loss")] == [2, 4, 6]


def test_tensorboard_shows_what_was_before_it_was_asked_for_but_not_what_will_be_repeated(folder: Path) -> None:
    rows = [train_row(step) for step in (2, 4, 6)]
    for row in [*rows, eval_row(6)]:
        note(folder, [], row)
    close(open_trackers(["tensorboard"], folder, tiny(), 4))
    assert scalars(folder) == shown(rows[:2], [eval_row(6)])


def test_a_tracker_that_cannot_be_opened_is_named(folder: Path) -> None:
    (folder / "tensorboard").write_text("in the way")
    with pytest.raises(RunError, match=r"^tracker tensorboard: could not be opened \(.*\)$"):
        open_trackers(["tensorboard"], folder, tiny(), 0)


# --- wandb ---


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """wandb reads its variables once a process."""
    import wandb

    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()
    yield
    wandb.teardown()


def records(path: Path) -> list[Any]:
    """All records of a finished run's file, which wandb may still be writing after it said that it had finished."""
    for _ in range(300):
        found = records_so_far(path)
        if any(record.HasField("exit") for record in found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end")


def records_so_far(path: Path) -> list[Any]:
    """LevelDB's log format (blocks of 32 KiB) after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2  # its classes are made when it is imported
    data, position, whole, found = path.read_bytes(), 7, b"", []
    while position < len(data):
        left = -position % 32768
        if left < 7 and left:
            position += left
            continue
        if position + 7 > len(data):
            break
        _, length, part = struct.unpack_from("<IHB", data, position)
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if part in (1, 4) and position <= len(data):  # full, last
            found.append(messages.Record.FromString(whole))
            whole = b""
    return found


def wandb_files(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*/*.wandb"))


def run_id(folder: Path) -> str:
    (path,) = wandb_files(folder)
    return next(record.run.run_id for record in records(path) if record.HasField("run"))


def history(path: Path) -> list[dict[str, Any]]:
    rows = []
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            rows.append({key: value for key, value in items.items() if not key.startswith("_")})
    return rows


@pytest.mark.usefixtures("offline")
def test_wandb_holds_every_row_though_scores_come_late_and_steps_again(folder: Path) -> None:
    opened = open_trackers(["wandb"], folder, tiny(), 0)
    for row in [train_row(2), train_row(4), train_row(6), eval_row(4), eval_row(6)]:
        note(folder, opened, row)
    close(opened)
    (path,) = wandb_files(folder)
    expected = [
        {"train/step": 2, "train/loss": 0.1 / 2, "train/grad_norm": 3, "train/images_per_s": 102.0},
        {"train/step": 4, "train/loss": 0.1 / 4, "train/grad_norm": 3, "train/images_per_s": 104.0},
        {"train/step": 6, "train/loss": 0.1 / 6, "train/grad_norm": 3, "train/images_per_s": 106.0},
        {"eval/step": 4, "eval/fid": 1e3 / 7 - 4},
        {"eval/step": 6, "eval/fid": 1e3 / 7 - 6},
    ]
    assert history(path) == expected

    cut_after_a_crash(folder, 4)
    resumed = open_trackers(["wandb"], folder, tiny(), 4)
    note(folder, resumed, train_row(6))
    close(resumed)
    first, second = ({record.WhichOneof("record_type"): record for record in records(p)} for p in wandb_files(folder))
    assert history(wandb_files(folder)[1]) == expected[2:3]
    assert first["run"].run.run_id == second["run"].run.run_id
    assert first["run"].run.project == "my study"
    assert first["run"].run.display_name == "S/4"
    config = {item.key: json.loads(item.value_json) for item in first["run"].run.config.update}
    assert config["id"] == tiny().id
    assert config["train"] == tiny().model_dump(mode="json")["train"]
    metric = {r.metric.name or r.metric.glob_name: r.metric.step_metric for r in records(path) if r.HasField("metric")}
    assert metric == {"train/step": "", "train/*": "train/step", "eval/step": "", "eval/*": "eval/step"}


@pytest.mark.usefixtures("offline")
def test_the_same_recipe_in_two_folders_is_two_runs_of_wandb(folder: Path) -> None:
    other = folder.with_name("other")
    other.mkdir()
    for run in (folder, other):
        close(open_trackers(["wandb"], run, tiny(), 0))
    ids = [run_id(run) for run in (folder, other)]
    assert len(set(ids)) == 2
    assert all(each.startswith(f"{tiny().id}-") for each in ids)


@pytest.mark.usefixtures("offline")
def test_a_run_is_not_logged_into_another_that_is_open_in_the_process(folder: Path) -> None:
    other = folder.with_name("other")
    other.mkdir()
    opened = open_trackers(["wandb"], folder, tiny(), 0)
    with pytest.raises(RunError, match=r"^tracker wandb: could not be opened \(.* another wandb run open"):
        open_trackers(["wandb"], other, tiny(), 0)
    close(opened)


@pytest.mark.slow  # a second and more
def test_wandb_without_a_login_is_an_error_and_no_prompt_even_at_a_terminal(folder: Path, tmp_path: Path) -> None:
    code = f"""if True:
        import sys
        from pathlib import Path
        from recipes import tiny
        from bench.errors import InputError
        from bench.trackers import open_trackers
        assert sys.stdin.isatty() and sys.stderr.isatty()
        try:
            open_trackers(["wandb"], Path({str(folder)!r}), tiny(), 0)
        except InputError as error:
            print(error)
        assert sys.stdin.isatty()
    """
    terminal, side = pty.openpty()
    env = {**BATCH_JOB, "HOME": str(tmp_path), "TERM": "xterm", "WANDB_MODE": "online"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, stdin=side, stderr=side, stdout=subprocess.PIPE, timeout=60, check=True)
    os.close(side)
    os.close(terminal)
    (line,) = done.stdout.decode().splitlines()
    assert line.startswith("tracker wandb: ")
    assert line.endswith("(`wandb login` once, or set WANDB_MODE=offline)")


# --- failures ---


class Broken:
    """Counts what it is asked, and fails at `fails_at`."""

    def __init__(self, fails_at: str) -> None:
        self.fails_at = fails_at
        self.calls: list[str] = []

    def log(self, row: dict[str, Any]) -> None:
        self._call("log")

    def close(self) -> None:
        self._call("close")

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails_at:
            raise OSError("No space\nleft on device")


@pytest.mark.parametrize(
    ("fails_at", "calls"),
    [("log", ["log", "close"]), ("close", ["log", "log", "close"]), ("log, close", ["log", "close"])],
)
def test_a_tracker_that_breaks_is_closed_with_one_warning_and_told_no_more(
    fails_at: str,
    calls: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = Broken(fails_at)
    monkeypatch.setattr(trackers, "_Wandb", lambda folder, recipe: broken)
    opened = open_trackers(["wandb", "tensorboard"], folder, tiny(), 0)
    rows = [train_row(2), train_row(4)]
    with caplog.at_level(logging.WARNING, "bench"):
        for row in rows:
            note(folder, opened, row)
        close(opened)
        close(opened)
    assert broken.calls == calls
    expected = "tracker wandb failed and is dropped; the metric files go on (No space left on device)"
    assert [record.getMessage() for record in caplog.records if record.name == "bench.trackers"] == [expected]
    assert scalars(folder)["train/loss"] == shown(rows, [])["train/loss"]


def test_an_interrupt_passes_through(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(row: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    broken = Broken("")
    broken.log = interrupt
    monkeypatch.setattr(trackers, "_Wandb", lambda folder, recipe: broken)
    (tracker,) = open_trackers(["wandb"], folder, tiny(), 0)
    with pytest.raises(KeyboardInterrupt):
        tracker.log(train_row(2))


def test_what_was_opened_is_closed_if_the_next_cannot_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Broken("")
    monkeypatch.setattr(trackers, "_Wandb", lambda folder, recipe: first)
    (folder / "tensorboard").write_text("in the way")
    with pytest.raises(RunError):
        open_trackers(["wandb", "tensorboard"], folder, tiny(), 0)
    assert first.calls == ["close"]
