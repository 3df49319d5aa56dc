"""A sweep on this machine through submitit's local executor: interrupted, repeated, failing in part."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from recipes import TINY
from test_run import results

from bench import jsonl
from bench.errors import InputError
from bench.run import run
from bench.run_folder import is_locked, write_config
from sweeps.cluster import load_cluster
from sweeps.expand import Sweep, load_sweep, run_folders
from sweeps.groups import work
from sweeps.local import submit

StudyFolder = Callable[[str], Path]
DITBENCH = Path(sys.executable).with_name("ditbench")


def sweep_file(
    folder: Path, name: str, train: dict[str, Any] | None = None, axes: dict[str, Any] | None = None
) -> Path:
    base = {key: value for key, value in TINY.items() if key != "label"}
    base["train"] = {**TINY["train"], **(train or {})}
    content = {
        "name": name,
        "label": "{size}/{patch_size}",
        "base": base,
        "product": {
            "size": {"S": {"model.hidden_size": 16}, "B": {"model.hidden_size": 24}},
            "model.patch_size": [4, 2],
            **(axes or {}),
        },
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def sessions(sweep: Sweep, runs: Path) -> dict[str, int]:
    folders = run_folders(sweep, runs)
    return {r.label: len(jsonl.read(folders[r.id] / "sessions.jsonl")) for r in sweep.recipes}


def all_results(sweep: Sweep, runs: Path) -> dict[str, Any]:
    folders = run_folders(sweep, runs)
    return {r.label: results(folders[r.id]) for r in sweep.recipes}


def command(path: Path, runs: Path) -> list[str]:
    return [str(DITBENCH), "sweep", "submit", str(path), "--cluster", "local", "--runs", str(runs)]


def steps_taken(sweep: Sweep, runs: Path) -> int:
    folders = run_folders(sweep, runs)
    return sum(len(jsonl.read(folders[r.id] / "train.jsonl")) for r in sweep.recipes)


def test_a_sweep_runs_once_and_a_failure_stops_nothing_else(study: StudyFolder, tmp_path: Path) -> None:
    study("tiny")
    path = sweep_file(tmp_path, "tiny", axes={"train.learning_rate": [1e-3, 1e18]})
    path.write_text(path.read_text().replace("{size}/{patch_size}", "{size}/{patch_size} {learning_rate}"))
    sweep = load_sweep(path)
    seen: list[set[str]] = []
    statuses = submit(sweep, tmp_path, "cpu", "fp32", lambda now: seen.append({status.state for status in now}))
    by_label = {status.label: status for status in statuses}
    assert len(by_label) == 8
    for label, status in by_label.items():
        if label.endswith("0.001"):
            assert (status.state, status.step, status.fid_step) == ("finished", 12, 12), status
        else:
            assert status.state == "failed", status
            assert status.error is not None
            assert "not finite at step" in status.error
    assert any("running" in states for states in seen)
    assert set(sessions(sweep, tmp_path).values()) == {1}

    again = subprocess.run(command(path, tmp_path), capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 1
    assert "4 of 8 runs failed, the others are finished" in again.stderr
    assert "Traceback" not in again.stderr
    counts = sessions(sweep, tmp_path)
    assert {counts[label] for label in by_label if label.endswith("0.001")} == {1}
    assert {counts[label] for label in by_label if not label.endswith("0.001")} == {2}


def test_killed_and_repeated_it_continues_to_the_same_results(study: StudyFolder, tmp_path: Path) -> None:
    train = {"steps": 300, "checkpoint_steps": [150], "save_every": 50, "log_every": 10}
    whole, path = study("whole"), sweep_file(tmp_path, "tiny", train)
    sweep = load_sweep(path)
    for recipe in sweep.recipes:
        write_config(recipe, whole / recipe.folder_name)
        run(whole / recipe.folder_name, whole)
    expected = {r.label: results(whole / r.folder_name) for r in sweep.recipes}

    study("tiny")
    launcher = subprocess.Popen(command(path, tmp_path), start_new_session=True, stdout=subprocess.DEVNULL)
    while launcher.poll() is None and steps_taken(sweep, tmp_path) < 12:
        time.sleep(0.01)
    os.killpg(launcher.pid, signal.SIGKILL)  # launcher and jobs, as when a machine goes down
    assert launcher.wait() == -signal.SIGKILL
    folders = run_folders(sweep, tmp_path)
    unfinished = {r.label for r in sweep.recipes if not (folders[r.id] / "finished.json").exists()}
    assert unfinished
    killed = sessions(sweep, tmp_path)

    launcher = subprocess.Popen(command(path, tmp_path), start_new_session=True, stdout=subprocess.DEVNULL)
    before = steps_taken(sweep, tmp_path)
    while launcher.poll() is None and steps_taken(sweep, tmp_path) < before + 5:
        time.sleep(0.01)
    launcher.kill()  # the launcher alone: its jobs go on, and the next one finds them
    launcher.wait()
    subprocess.run(command(path, tmp_path), check=True, capture_output=True, timeout=300)
    assert all_results(sweep, tmp_path) == expected
    # One more start for what the first kill interrupted; none for what the living jobs worked on.
    assert sessions(sweep, tmp_path) == {label: n + (label in unfinished) for label, n in killed.items()}


def test_ctrl_c_ends_the_jobs_with_one_line(study: StudyFolder, tmp_path: Path) -> None:
    home, path = study("tiny"), sweep_file(tmp_path, "tiny", {"steps": 100_000, "log_every": 10})
    sweep = load_sweep(path)
    launcher = subprocess.Popen(
        command(path, tmp_path),
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background ignores the signal, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while launcher.poll() is None and steps_taken(sweep, tmp_path) < 5:
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


def test_longest_first() -> None:
    sweep = load_sweep(Path(__file__).parents[2] / "sweeps" / "studies" / "digits.yaml")
    order = [recipe.label for recipe in sorted(sweep.recipes, key=work, reverse=True)]
    assert order[:3] == ["XL/1", "L/1", "XL/2"]
    assert order[-1] == "S/4"


def test_a_renamed_label_keeps_its_folder(tmp_path: Path) -> None:
    path = sweep_file(tmp_path, "tiny")
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
