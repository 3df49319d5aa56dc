"""Sweeps submitted from shells with a mind of their own: inside another job, full of options, or with nothing."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from runs import last_step
from slurm_cluster import Cluster
from studies import all_finished, job_ids, starts, submit, write_profile
from sweep_files import DITBENCH, folders, write_sweep

# What a shell, a launcher or a scheduler may have left in the environment; each would stop this sweep.
HOSTILE = {
    "SBATCH_PARTITION": "nosuch",
    "SBATCH_TIMELIMIT": "1",
    "SBATCH_JOB_NAME": "mine",
    "SBATCH_ARRAY_INX": "0-3",
    "SBATCH_EXPORT": "NONE",
    "SBATCH_WAIT": "1",
    "SQUEUE_STATES": "COMPLETED",
    "SQUEUE_NAMES": "mine",
    "SACCT_FORMAT": "JobID",
    "SCANCEL_STATE": "PENDING",
    "SUBMITIT_PREEMPT_SIGNAL": "USR1",
    "MASTER_ADDR": "nowhere",
    "MASTER_PORT": "1",
    "RANK": "7",
    "WORLD_SIZE": "8",
    "LOGNAME": "nobody",
    "USER": "nobody",
}


def test_submitting_from_inside_an_array_task(cluster: Cluster, tmp_path: Path) -> None:
    """A single job takes nothing of the surrounding one: not its index, and a requeue is its own."""
    path = write_sweep(tmp_path, "inner", {"seed": [0]}, {"steps": 600, "checkpoint_steps": [], "save_every": 1})
    profile = write_profile(tmp_path)
    arguments = ["submit", path, "--cluster", profile, "--runs", tmp_path]
    command = shlex.join([str(DITBENCH), "sweep", *map(str, arguments)])
    variables = shlex.join([f"{name}={value}" for name, value in {**HOSTILE, **_python_path()}.items()])
    log = f"{shlex.quote(str(tmp_path))}/$log"
    script = f"for log in first again; do env {variables} {command} > {log} 2>&1; done; sleep 600"
    outer = cluster.sbatch("-p", "main", "-n", "2", "-c", "2", "--array=3", "--wrap", script)
    again = tmp_path / "again"
    cluster.wait_until(lambda: again.exists() and again.read_text().strip(), 120, "it was submitted twice")
    assert "1 runs to train" in (tmp_path / "first").read_text()
    assert "nothing to submit: of 1 runs 0 finished, 1 queued or running" in again.read_text()
    (folder,) = folders(path, tmp_path).values()
    (job,) = job_ids(tmp_path / "inner").values()
    asked = cluster.scontrol("show", "job", job)
    assert re.search(r"\bPartition=low\b", asked) and re.search(r"\bTimeLimit=00:10:00\b", asked)
    cluster.wait_until(lambda: last_step(folder) > 20, 120, "it is training")
    cluster._run("scancel", "--signal=USR2", job)
    cluster.wait_until(lambda: all_finished(path, tmp_path), 240, "it went on after it was stopped, and is scored")
    assert [start["attempt"] for start in starts(folder)] == [f"{job}.0", f"{job}.1"]
    around = cluster.scontrol("show", "job", f"{outer}_3")
    assert "JobState=RUNNING" in around and "Restarts=0" in around


def test_a_job_that_is_given_no_environment(cluster: Cluster, tmp_path: Path) -> None:
    """`export: NONE`, two ranks, and a folder whose name every layer has to quote."""
    home = tmp_path / "it's two words"
    home.mkdir()
    path = write_sweep(home, "bare", {"seed": [0]})
    each = {"gpus_per_node": 2, "mem_gb": 4}
    profile = write_profile(tmp_path, training=[each], evaluation=[each], sbatch={"export": "NONE"})
    submit(path, profile, home)
    cluster.wait_until(lambda: all_finished(path, home), 180, "it is trained and scored")
    (folder,) = folders(path, home).values()
    (start,) = starts(folder)
    assert start["world_size"] == 2


def _python_path() -> dict[str, str]:
    return {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
