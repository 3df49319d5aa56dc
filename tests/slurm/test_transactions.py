"""Commands of a real SLURM whose answer is lost, that fail for a moment, or that meet a job between two states."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from pathlib import Path

from runs import last_step
from slurm_cluster import Cluster
from studies import all_finished, ditbench, job_ids, starts, submit, write_profile
from sweep_files import folders, write_sweep

LONG = {"steps": 3000, "checkpoint_steps": [], "save_every": 1, "log_every": 1}


def wrap(folder: Path, command: str, script: str) -> Path:
    """A folder for the PATH, with a command that does this; `$real` is SLURM's own."""
    folder.mkdir(exist_ok=True)
    path = folder / command
    path.write_text(f"#!/bin/bash\nreal={shutil.which(command)}\n{script}\n")
    path.chmod(0o755)
    return folder


def test_jobs_whose_answer_was_lost_do_their_runs_once(cluster: Cluster, tmp_path: Path) -> None:
    """The training array's as well as that of the scoring array, which has to wait for it."""
    path = write_sweep(tmp_path, "lost", {"seed": [0, 1]}, {"steps": 20, "checkpoint_steps": []})
    lost = '"$real" "$@" >/dev/null; echo "sbatch: error: Socket timed out on send/recv operation" >&2; exit 1'
    profile, bin_folder = write_profile(tmp_path), wrap(tmp_path / "bin", "sbatch", lost)
    search = f"{bin_folder}:{Path(str(shutil.which('sbatch'))).parent}:/usr/bin:/bin"
    done = ditbench("submit", path, "--cluster", profile, "--runs", tmp_path, PATH=search)
    assert done.stdout.count("an array of 2, for 2 runs") == 2
    assert "nothing to submit" in submit(path, profile, tmp_path)
    cluster.wait_until(lambda: all_finished(path, tmp_path), 120, "both runs are scored")
    for folder in folders(path, tmp_path).values():
        assert len(starts(folder)) == 1
        assert not list(folder.glob("*failures.jsonl"))


def test_a_requeue_that_fails_twice_ends_no_run(cluster: Cluster, tmp_path: Path) -> None:
    path = write_sweep(tmp_path, "again", {"seed": [0]}, LONG)
    calls = tmp_path / "calls"
    script = f'echo >> {calls}; [ $(wc -l < {calls}) -gt 2 ] && exec "$real" "$@"\n'
    script += 'echo "slurm_requeue error: Unable to contact slurm controller (connect failure)" >&2; exit 1'
    bin_folder = wrap(tmp_path / "bin", "scontrol", script)
    submit(path, write_profile(tmp_path, setup=[f"export PATH={bin_folder}:$PATH"]), tmp_path)
    (folder,) = folders(path, tmp_path).values()
    cluster.wait_until(lambda: last_step(folder) > 20, 120, "it is training")
    (job,) = job_ids(tmp_path / "again").values()
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    cluster.wait_until(lambda: len(starts(folder)) == 2, 120, "it goes on")
    assert len(calls.read_text().splitlines()) == 3
    assert not (folder / "failures.jsonl").exists()
    ditbench("cancel", path, "--runs", tmp_path)


def test_a_job_that_is_requeueing_itself_does_not_survive_a_cancel(cluster: Cluster, tmp_path: Path) -> None:
    path = write_sweep(tmp_path, "gone", {"seed": [0, 1]}, LONG)
    # One asks to be requeued before it is cancelled, the other a moment after.
    at_it = tmp_path / "at-it"
    script = f'[ $SLURM_ARRAY_TASK_ID = 0 ] && sleep 2\n"$real" "$@"; : > {at_it}; sleep 3'
    bin_folder = wrap(tmp_path / "bin", "scontrol", script)
    profile = write_profile(tmp_path, setup=[f"export PATH={bin_folder}:$PATH"])
    submit(path, profile, tmp_path)
    runs = folders(path, tmp_path)
    cluster.wait_until(lambda: all(last_step(folder) > 20 for folder in runs.values()), 120, "both are training")
    subprocess.run(["scancel", "--signal=USR2", *job_ids(tmp_path / "gone").values()], check=True)
    cluster.wait_until(at_it.exists, 60, "one has asked")
    ditbench("cancel", path, "--runs", tmp_path)
    assert not cluster.squeue("--noheader").strip()
    begun = Counter({label: len(starts(folder)) for label, folder in runs.items()})
    assert "2 runs to train" in submit(path, profile, tmp_path)
    cluster.wait_until(lambda: all(len(starts(f)) > begun[label] for label, f in runs.items()), 120, "both go on")
    assert all(starts(folder)[-1]["resumed_from_step"] > 20 for folder in runs.values())
    ditbench("cancel", path, "--runs", tmp_path)
