"""What the caller's shell holds reaches neither SLURM's commands nor jobs: they get what the profile says."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Ended, ditbench
from fake_sbatch import FakeCluster
from fake_slurm import FakeStudy
from sweep_files import four_runs

from sweeps.local import _jobs_environment
from sweeps.slurm import score_early

PROFILE: dict[str, Any] = {"executor": "slurm", "time_limit": "01:00:00", "training": [{}], "evaluation": [{}]}

# Of the shell, and of a job that the shell is in: an array task of several ranks, started by torchrun or mpirun.
OPTIONS = {
    "SBATCH_PARTITION": "elsewhere",
    "SBATCH_TIMELIMIT": "1",
    "SBATCH_JOB_NAME": "mine",
    "SBATCH_ARRAY_INX": "0-9",
    "SBATCH_WAIT": "1",
    "SBATCH_EXPORT": "NONE",
    "SBATCH_ACCOUNT": "theirs",
    "SBATCH_QOS": "low",
    "SBATCH_NO_REQUEUE": "1",
    "SBATCH_SIGNAL": "USR1@5",
    "SBATCH_GPUS_PER_NODE": "8",
    "SALLOC_PARTITION": "elsewhere",
    "SRUN_CPU_BIND": "none",
    "SLURM_CLUSTERS": "far",
    "SLURM_EXIT_ERROR": "0",
    "SLURM_DEBUG_FLAGS": "all",
    "SLURM_TIMELIMIT": "1",
    "SCANCEL_STATE": "PENDING",
    "SCONTROL_ALL": "1",
    "SACCT_FORMAT": "JobID",
    "SUBMITIT_PREEMPT_SIGNAL": "USR1",
}
IDENTITY = {
    "SLURM_JOB_ID": "41",
    "SLURM_ARRAY_JOB_ID": "40",
    "SLURM_ARRAY_TASK_ID": "1",
    "SLURM_RESTART_COUNT": "2",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_NODEID": "1",
    "SLURM_JOB_NODELIST": "n[7-8]",
    "SLURM_CPUS_PER_TASK": "32",
    "SLURM_EXPORT_ENV": "NONE",
    "SLURMD_NODENAME": "n7",
    "SUBMITIT_EXECUTOR": "local",
    "SUBMITIT_FOLDER": "/elsewhere",
    "_TEST_CLUSTER_": "debug",
    "MASTER_ADDR": "n7",
    "MASTER_PORT": "29500",
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
    "TORCHELASTIC_RUN_ID": "x",
    "PMI_RANK": "3",
    "PMIX_RANK": "3",
    "OMPI_COMM_WORLD_RANK": "3",
    "CUDA_VISIBLE_DEVICES": "5",
    "ROCR_VISIBLE_DEVICES": "5",
}
QUERIES = {
    "SQUEUE_STATES": "RUNNING",
    "SQUEUE_PARTITION": "elsewhere",
    "SQUEUE_NAMES": "mine",
    "SQUEUE_ACCOUNT": "theirs",
    "SQUEUE_USERS": "nobody",
    "SQUEUE_FORMAT": "%i",
}
HOSTILE = OPTIONS | IDENTITY | QUERIES
MINE = {
    "SLURM_CONF": "/etc/cluster.conf",
    "HF_HOME": "/big/disk",
    "DITBENCH_CACHE": "/big/cache",
    "OMPI_MCA_btl": "tcp",
}


class Sweep:
    """The commands on a sweep of four runs, in a folder of this name."""

    def __init__(self, folder: Path, cluster: FakeCluster, **profile: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.cluster = folder, cluster
        self.path, self.profile = four_runs(folder), folder / "profile.yaml"
        self.profile.write_text(yaml.safe_dump({**PROFILE, **profile}))

    def __call__(self, verb: str, *more: str, **environment: str) -> Ended:
        arguments = [self.path, "--runs", self.folder, "--cluster", self.profile, *more]
        return ditbench("sweep", verb, *arguments, PATH=self.cluster.path, **environment)


@pytest.fixture
def cluster(tmp_path: Path) -> FakeCluster:
    return FakeCluster(tmp_path / "bin")


def test_jobs_see_nothing_of_the_caller_but_settings(tmp_path: Path, cluster: FakeCluster) -> None:
    before = dict(os.environ)
    done = Sweep(tmp_path / "study", cluster)("submit", **HOSTILE, **MINE)
    assert done.status == 0, done.err
    assert len(cluster.submitted()) == 2
    for job in cluster.submitted():
        assert not set(HOSTILE) & set(job.environment)
        assert set(MINE.items()) <= set(job.environment.items())
    assert dict(os.environ) == before


def test_a_dry_run_shows_what_is_submitted(tmp_path: Path, cluster: FakeCluster) -> None:
    sweep = Sweep(tmp_path / "study", cluster, sbatch={"export": "NONE", "exclusive": False, "contiguous": True})
    shown = sweep("submit", "--dry-run", **HOSTILE)
    assert shown.status == 0, shown.err
    assert not (sweep.folder / "tiny").exists()
    sweep("submit")
    training, scoring = (job.script for job in cluster.submitted())
    scripts = re.split(r"\n\n# ---- .*\n", shown.out)[1:]
    assert len(scripts) == 2
    for script, given in zip(scripts, (training, scoring), strict=True):
        one, other = (re.sub(r"-[0-9a-f]{8}-(?=\d)", "-TOKEN-", text.strip()) for text in (script, given))
        assert one == re.sub(r"(?<=aftercorr:)\d+", "JOBID", other)
    assert "--signal=USR2@120\n" in training
    assert "--contiguous\n" in training
    assert "exclusive" not in training


@pytest.mark.parametrize("name", [*QUERIES, "LOGNAME", "USER"])
def test_queued_jobs_are_seen_whatever_the_shell_says(tmp_path: Path, cluster: FakeCluster, name: str) -> None:
    sweep = Sweep(tmp_path / "study", cluster)
    assert sweep("submit").status == 0
    again = sweep("submit", **{name: QUERIES.get(name, "somebody")})
    assert again.out == "nothing to submit: of 4 runs 0 finished, 4 queued or running\n"
    assert len(cluster.submitted()) == 2


def test_a_user_without_a_name(tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    sweep = Sweep(tmp_path / "study", cluster)
    assert sweep("submit").status == 0
    assert sweep("submit").out == "nothing to submit: of 4 runs 0 finished, 4 queued or running\n"


def test_a_complaint_is_no_answer_though_the_status_is_0(tmp_path: Path, cluster: FakeCluster) -> None:
    sweep = Sweep(tmp_path / "study", cluster)
    cluster.says("squeue", "#!/bin/sh\necho 'squeue: error: Invalid user: me' >&2\n")
    done = sweep("submit")
    assert (done.status, done.err) == (1, "ditbench: squeue: Invalid user: me\n")
    assert cluster.submitted() == []


def test_a_scoring_job_takes_nothing_from_the_job_that_submits_it(
    tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeStudy(tmp_path)
    folder = fake.folder / "submissions" / "0001"
    fake.submitted(fake.array("training", "70", "S/4"), evaluate="as-ready")
    run = fake.run("S/4")
    (recipe,) = (recipe for recipe in fake.sweep.recipes if recipe.label == "S/4")
    from bench.files.run_folder import write_config

    write_config(recipe, run)
    for name, value in {**HOSTILE, **MINE, "PATH": cluster.path}.items():
        monkeypatch.setenv(name, value)
    score_early.main([str(folder), run.name, "6"])
    (job,) = cluster.submitted()
    assert not set(HOSTILE) & set(job.environment)
    assert set(MINE.items()) <= set(job.environment.items())
    assert "--signal=USR2@120\n" in job.script


def test_jobs_of_this_machine_are_of_no_other_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**HOSTILE, **MINE, "OMP_NUM_THREADS": "7"}.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with _jobs_environment():
        assert not set(HOSTILE) & set(os.environ)
        assert set(MINE.items()) <= set(os.environ.items())
        assert os.environ["OMP_NUM_THREADS"] == os.environ["OPENBLAS_NUM_THREADS"] == "1"
    assert dict(os.environ) == before


# The script


def ran(script: str, cluster: FakeCluster, folder: Path, **environment: str) -> tuple[list[str], dict[str, str]]:
    """What srun is called with by a script, and the variables that it sees."""
    record = folder / "srun"
    cluster.says(
        "srun",
        f"#!/bin/sh\nprintf '%s\\0' \"$@\" > {shlex.quote(str(record))}.args\n"
        f"/usr/bin/env -0 > {shlex.quote(str(record))}.env\n",
    )
    variables = {"PATH": cluster.path, "SLURM_CPUS_PER_TASK": "3", **environment}
    done = subprocess.run(["bash", "-c", script], env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    pairs = (entry.partition("=") for entry in Path(f"{record}.env").read_text().split("\0") if entry)
    return Path(f"{record}.args").read_text().split("\0")[:-1], {name: value for name, _, value in pairs}


# What shells and SLURM take for itself only where it is quoted.
@pytest.mark.parametrize("name", ["plain", "two words", "it's", 'say "x" $HOME `id` #1', "größe"])
def test_what_a_job_starts_with(tmp_path: Path, cluster: FakeCluster, name: str) -> None:
    sweep = Sweep(tmp_path / name, cluster, training=[{"cpus_per_task": 3, "tasks_per_node": 2}])
    done = sweep("submit")
    assert done.status == 0, done.err
    code = sweep.folder / "tiny" / "submissions" / "0001" / "code"
    script = cluster.submitted()[0].script
    arguments, variables = ran(script, cluster, tmp_path)
    assert variables["PYTHONPATH"] == str(code)
    assert variables["SUBMITIT_PREEMPT_SIGNAL"] == "USR2"
    assert variables["OMP_NUM_THREADS"] == variables["OPENBLAS_NUM_THREADS"] == "3"
    assert variables["PWD"] == str(code)
    assert {"--export=ALL", "--kill-on-bad-exit=1"} <= set(arguments)
    assert arguments[-1] == str(code.parent / "jobs")
    assert arguments[arguments.index("--output") + 1] == str(code.parent / "jobs" / "%A_%a_%t_log.out")
    hostile = {"PYTHONPATH": "/opt/modules/lib:/more", "SUBMITIT_PREEMPT_SIGNAL": "USR1", "OPENBLAS_NUM_THREADS": "1"}
    _, variables = ran(script, cluster, tmp_path, **hostile)
    assert variables["PYTHONPATH"] == f"{code}:/opt/modules/lib:/more"
    assert (variables["SUBMITIT_PREEMPT_SIGNAL"], variables["OPENBLAS_NUM_THREADS"]) == ("USR2", "3")


@pytest.mark.parametrize("name", ["50%", "%j", "a\\b", "a:b", "two\nlines", "tab\there"])
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_paths_that_slurm_would_change_are_refused(
    tmp_path: Path, cluster: FakeCluster, name: str, more: tuple[str, ...]
) -> None:
    done = Sweep(tmp_path / name, cluster)("submit", *more)
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert "--runs" in done.err
    assert cluster.submitted() == []
    assert not (tmp_path / name / "tiny").exists()


def test_memory_is_never_rounded_down_to_all_of_a_node(tmp_path: Path, cluster: FakeCluster) -> None:
    sweep = Sweep(tmp_path / "study", cluster, training=[{"mem_gb": 0.0001}], evaluation=[{"mem_gb": 1.5}])
    sweep("submit")
    training, scoring = (job.script for job in cluster.submitted())
    assert "--mem=1M\n" in training
    assert "--mem=1536M\n" in scoring


# Names of 300 characters

LONG = "x" * 300


def test_a_long_label_is_no_obstacle(tmp_path: Path, cluster: FakeCluster) -> None:
    sweep = Sweep(tmp_path / "study", cluster)
    content = yaml.safe_load(sweep.path.read_text())
    sweep.path.write_text(yaml.safe_dump({**content, "label": LONG + "{size}{patch_size}"}))
    done = sweep("submit")
    assert done.status == 0, done.err
    assert sweep("submit").out == "nothing to submit: of 4 runs 0 finished, 4 queued or running\n"


def test_the_longest_name_of_a_sweep_is_good_for_all_files(
    tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = Sweep(tmp_path / "study", cluster, evaluate="as-ready")
    content = yaml.safe_load(sweep.path.read_text())
    sweep.path.write_text(yaml.safe_dump({**content, "name": LONG[:100]}))
    done = sweep("submit")
    assert done.status == 0, done.err
    monkeypatch.setenv("PATH", cluster.path)
    run = next((sweep.folder / LONG[:100]).glob("S-4-*"))
    score_early.main([str(run.parent / "submissions" / "0001"), run.name, "6"])
    assert len(cluster.submitted()) == 3


@pytest.mark.parametrize("verb", ["plan", "submit", "status"])
def test_names_that_are_too_long_for_files_are_named(tmp_path: Path, cluster: FakeCluster, verb: str) -> None:
    path, runs = four_runs(tmp_path), str(tmp_path)
    cases = [(f"{LONG}.yaml", runs), (str(path), LONG)]
    for sweep, folder in cases:
        done = ditbench("sweep", verb, sweep, "--runs", folder, PATH=cluster.path)
        assert (done.status, done.err.count("\n")) == (2, 1)
        assert LONG in done.err and "Errno" not in done.err
    path.write_text(f"extends: {LONG}\nname: child\n")
    assert f"{path}: extends: " in ditbench("sweep", verb, path).err
    four_runs(tmp_path)
    if verb != "status":
        done = ditbench("sweep", verb, path, "--cluster", LONG, PATH=cluster.path)
        assert (done.status, "Errno" in done.err, LONG in done.err) == (2, False, True)


# What is printed for the shell


@pytest.mark.parametrize("name", ["plain", "two words", "it's; $(touch x)"])
def test_the_printed_command_can_be_pasted(tmp_path: Path, cluster: FakeCluster, name: str) -> None:
    sweep = Sweep(tmp_path / name, cluster)
    (line,) = [line for line in sweep("submit").out.splitlines() if line.startswith("watch them: ")]
    expected = ["ditbench", "sweep", "status", str(sweep.path), "--runs", str(sweep.folder), "--watch"]
    assert shlex.split(line.removeprefix("watch them: ")) == expected


# Where nothing says how fast the cluster is


def test_submit_needs_no_speeds_and_plan_does(tmp_path: Path, cluster: FakeCluster) -> None:
    sweep = Sweep(tmp_path / "study", cluster)
    assert "gpu: missing" in sweep("plan").err
    over = sweep("submit", "--budget", "10")
    assert (over.status, "gpu: missing" in over.err) == (2, True)
    assert "Time is not known: " in sweep("submit", "--dry-run").out
    assert cluster.submitted() == []
    assert sweep("submit").status == 0
    without_mfu = Sweep(tmp_path / "other", cluster, gpu={"name": "x", "peak_tflops": {"bf16": 1.0}})
    assert "gpu.peak_tflops.fp32: missing" in without_mfu("plan").err
    assert without_mfu("submit").status == 0
