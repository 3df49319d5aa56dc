"""A sweep on this machine through submitit's local executor: interrupted, repeated, failing in part."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import ditbench
from runs import StudyFolder, results
from sweep_files import FOUR, folders, four_runs, rows_logged, submit_here, write_sweep

from bench.errors import InputError
from bench.files import jsonl
from bench.files.run_folder import is_locked, write_config
from bench.run import run
from sweeps.cluster import load_cluster
from sweeps.expand import load_sweep, run_folders
from sweeps.groups import work
from sweeps.local import submit


def starts(path: Path, runs: Path) -> dict[str, int]:
    return {label: len(jsonl.read(folder / "sessions.jsonl")) for label, folder in folders(path, runs).items()}


@pytest.mark.slow
def test_a_sweep_runs_once_and_a_failure_stops_nothing_else(study: StudyFolder, tmp_path: Path) -> None:
    study("tiny")
    axes = {**FOUR, "train.learning_rate": [1e-3, 1e18]}
    path = write_sweep(tmp_path, "tiny", axes, label="{size}/{patch_size} {learning_rate}")
    seen: list[set[str]] = []
    statuses = submit(
        load_sweep(path), tmp_path, "cpu", "fp32", lambda now: seen.append({status.state for status in now})
    )
    good = {status.label: status for status in statuses if status.label.endswith("0.001")}
    bad = {status.label: status for status in statuses if status.label not in good}
    assert (len(good), len(bad)) == (4, 4)
    for status in good.values():
        assert (status.state, status.step, status.fid_step) == ("finished", 12, 12), status
    for status in bad.values():
        assert status.state == "failed", status
        assert "not finite at step" in str(status.error)
    assert any("running" in states for states in seen)
    assert set(starts(path, tmp_path).values()) == {1}
    for status in good.values():  # jobs do several runs each
        said = ditbench("sweep", "logs", path, status.id, "--runs", tmp_path).out
        rows = [*jsonl.read(status.folder / "train.jsonl"), *jsonl.read(status.folder / "evals.jsonl")]
        lines = [line[len("2026-01-01 10:00:00 ") :] for line in said.splitlines()]
        assert sorted(lines) == sorted(["started from step 0", *map(jsonl.in_words, rows)])

    again = subprocess.run(submit_here(path, tmp_path), capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 1
    assert "4 of 8 runs failed, the others are finished" in again.stderr
    assert "Traceback" not in again.stderr
    assert starts(path, tmp_path) == {label: 1 if label in good else 2 for label in (*good, *bad)}


@pytest.mark.slow
def test_killed_and_repeated_it_continues_to_the_same_results(study: StudyFolder, tmp_path: Path) -> None:
    path = four_runs(tmp_path, steps=300, checkpoint_steps=[150], save_every=50, log_every=10)
    whole, command = study("whole"), submit_here(path, tmp_path)
    expected: dict[str, Any] = {}
    for recipe in load_sweep(path).recipes:
        write_config(recipe, whole / recipe.folder_name)
        run(whole / recipe.folder_name, whole)
        expected[recipe.label] = results(whole / recipe.folder_name)

    study("tiny")
    launcher = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    while launcher.poll() is None and rows_logged(path, tmp_path) < 12:
        time.sleep(0.01)
    os.killpg(launcher.pid, signal.SIGKILL)  # launcher and jobs, as when a machine goes down
    assert launcher.wait() == -signal.SIGKILL
    runs = folders(path, tmp_path)
    unfinished = {label for label, folder in runs.items() if not (folder / "finished.json").exists()}
    assert unfinished
    killed = starts(path, tmp_path)

    launcher = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    before = rows_logged(path, tmp_path)
    while launcher.poll() is None and rows_logged(path, tmp_path) < before + 5:
        time.sleep(0.01)
    launcher.kill()  # the launcher alone: its jobs go on, and the next one finds them
    launcher.wait()
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    assert {label: results(folder) for label, folder in runs.items()} == expected
    # One more start for what the first kill interrupted; none for what the living jobs worked on.
    assert starts(path, tmp_path) == {label: n + (label in unfinished) for label, n in killed.items()}


@pytest.mark.slow
def test_ctrl_c_ends_the_jobs_with_one_line(study: StudyFolder, tmp_path: Path) -> None:
    home, path = study("tiny"), four_runs(tmp_path, steps=100_000, log_every=10)
    launcher = subprocess.Popen(
        submit_here(path, tmp_path),
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background ignores the signal, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while launcher.poll() is None and rows_logged(path, tmp_path) < 5:
        time.sleep(0.01)
    os.killpg(launcher.pid, signal.SIGINT)
    said = launcher.communicate(timeout=60)[1]
    assert launcher.returncode == 130
    assert said == "ditbench: interrupted; what was saved stays, and the same command continues\n"
    deadline = time.monotonic() + 20
    while any(is_locked(slot) for slot in (home / "jobs").glob(".slot-*")):
        assert time.monotonic() < deadline, "a job lives on"
        time.sleep(0.05)
    assert not list(home.glob("*/error.json"))


@pytest.mark.parametrize("name", ["%j", "50%abc"])
def test_a_folder_that_submitit_would_rename_is_refused(tmp_path: Path, name: str) -> None:
    done = ditbench(*submit_here(four_runs(tmp_path), tmp_path / name)[1:])
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "--runs" in done.err
    assert not (tmp_path / name).exists()


def test_longest_first() -> None:
    sweep = load_sweep(Path(__file__).parents[2] / "sweeps" / "studies" / "digits.yaml")
    order = [recipe.label for recipe in sorted(sweep.recipes, key=work, reverse=True)]
    assert order[:3] == ["XL/1", "L/1", "XL/2"]
    assert order[-1] == "S/4"


def test_a_renamed_label_keeps_its_folder(tmp_path: Path) -> None:
    path = four_runs(tmp_path)
    before = run_folders(load_sweep(path), tmp_path)
    for folder in before.values():
        folder.mkdir(parents=True)
    path.write_text(path.read_text().replace("{size}/{patch_size}", "{patch_size} {size}"))
    assert run_folders(load_sweep(path), tmp_path) == before


def test_cluster_profiles(tmp_path: Path) -> None:
    assert load_cluster("local").executor == "local"
    with pytest.raises(InputError, match="--cluster nowhere: no such profile; accepted: local"):
        load_cluster("nowhere")
    profile = tmp_path / "mine.yaml"
    profile.write_text("executor: local\npartitoin: gpu\n")
    with pytest.raises(InputError, match=r"mine\.yaml: partitoin: unknown key; accepted: executor"):
        load_cluster(str(profile))
