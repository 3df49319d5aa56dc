"""Several people on one project folder, and ranks on nodes where a port is held, on a real SLURM."""

from __future__ import annotations

import errno
import grp
import json
import os
import pwd
import random
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from runs import last_step
from slurm_cluster import Cluster
from studies import all_finished, job_ids, starts, submit, write_profile
from sweep_files import folders, write_sweep

from sweeps.slurm import submissions

ROOT = Path(__file__).parents[2]
NAMES = ("ditbench-ann", "ditbench-ben")
GROUP = "ditbench-both"


@dataclass(frozen=True)
class User:
    """Somebody with a name and a number, in the project's group, who types commands with the umask 002."""

    name: str
    uid: int
    gid: int
    python: Path
    home: Path

    def sweep(self, *arguments: object, status: int = 0) -> str:
        """`ditbench sweep ...`; what it prints, or complains of where another status is expected."""
        environment = {name: os.environ[name] for name in ("PATH", "SLURM_CONF")}
        environment |= {"HOME": str(self.home), "USER": self.name, "LOGNAME": self.name, "PYTHONPATH": str(ROOT)}
        command = [self.python, "-c", "from ditbench import main; main()", "sweep", *arguments]
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=300, cwd=self.home, env=environment,
            user=self.uid, group=self.gid, extra_groups=[grp.getgrnam(GROUP).gr_gid], umask=0o002,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stderr if status else done.stdout


@pytest.fixture
def project() -> Iterator[Path]:
    """A folder that two new users share, as administrators make them: of their group, which it hands on."""
    folder = Path(tempfile.mkdtemp(prefix="ditbench-project-"))  # pytest's are root's alone
    try:
        subprocess.run(["groupadd", "--force", GROUP], check=True)
        for name in NAMES:
            subprocess.run(["useradd", "--no-create-home", "--groups", GROUP, name], check=True)
        os.chown(folder, -1, grp.getgrnam(GROUP).gr_gid)
        folder.chmod(0o2775)
        yield folder
    finally:
        for name in NAMES:
            subprocess.run(["scancel", "--quiet", f"--user={name}"], capture_output=True)
            subprocess.run(["userdel", "--force", name], capture_output=True)
        subprocess.run(["groupdel", GROUP], capture_output=True)
        shutil.rmtree(folder)


@pytest.fixture
def users(project: Path) -> tuple[User, User]:
    """With a Python that they may run, which has what this one has: this one may be root's alone."""
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [getattr(sys, "_base_executable", sys.executable), system]
    usable = [path for path in candidates if Path(path).exists() and _can_run(path)]
    if not usable:
        pytest.skip(f"other users can run neither of {', '.join(candidates)}")
    venv = project / "venv"
    subprocess.run([usable[0], "-m", "venv", "--without-pip", venv], check=True)
    (packages,) = venv.glob("lib/python3*/site-packages")
    lines = [f"import site; site.addsitedir({path!r})" for path in sys.path if path.endswith("site-packages")]
    (packages / "all.pth").write_text("\n".join(lines) + "\n")
    made = []
    for name in NAMES:
        known = pwd.getpwnam(name)
        home = project / name
        home.mkdir()
        os.chown(home, known.pw_uid, known.pw_gid)
        made.append(User(name, known.pw_uid, known.pw_gid, venv / "bin" / "python", home))
    return made[0], made[1]


def _can_run(python: str) -> bool:
    try:
        return subprocess.run([python, "-c", ""], user=NAMES[0], cwd="/", capture_output=True).returncode == 0
    except PermissionError:
        return False


def test_two_people_work_on_one_project_folder(cluster: Cluster, project: Path, users: tuple[User, User]) -> None:
    """Ben sees Ann's jobs, starts none a second time, cannot cancel them, and continues what she stopped."""
    ann, ben = users
    train = {"steps": 1500, "checkpoint_steps": [], "save_every": 1, "log_every": 1}
    path, runs = write_sweep(project, "shared", {"seed": [0]}, train), project / "runs"
    profile = write_profile(project)
    rest = (path, "--runs", runs)
    ann.sweep("submit", path, "--cluster", profile, "--runs", runs)
    (folder,) = folders(path, runs).values()
    (job,) = job_ids(runs / "shared").values()
    cluster.wait_until(lambda: last_step(folder) > 5, 180, "Ann's job is training")
    for user in users:
        (row,) = json.loads(user.sweep("status", *rest, "--json"))
        assert (row["state"], row["job"]) == ("running", job), user
    assert "0 finished, 1 queued or running" in ben.sweep("submit", path, "--cluster", profile, "--runs", runs)
    assert "denied" in ben.sweep("cancel", *rest, status=1)
    assert job in cluster.squeue("--noheader", "--format=%i", "--states=RUNNING").split()
    ann.sweep("cancel", *rest)
    cluster.wait_until(lambda: not cluster.squeue("--noheader").strip(), 60, "her jobs are gone")
    assert last_step(folder) < 1500
    ben.sweep("submit", path, "--cluster", profile, "--runs", runs)
    assert [record.uid for record in submissions.read_all(runs / "shared")] == [ann.uid, ben.uid]
    cluster.wait_until(lambda: all_finished(path, runs), 240, "Ben's jobs finished her run")
    begun = starts(folder)
    assert begun[-1]["resumed_from_step"] > 5
    shared = grp.getgrnam(GROUP).gr_gid
    for file in (path for path in (runs / "shared").rglob("*") if "__pycache__" not in path.parts):
        found = file.stat()
        assert found.st_gid == shared, file
        assert found.st_mode & stat.S_IWGRP, file
    owners = {file.stat().st_uid for file in folder.iterdir()}
    assert owners == {ann.uid, ben.uid}


def test_ranks_meet_where_others_hold_the_ports(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that follows from the job's number, and the one that the shell's variable names."""
    path = write_sweep(tmp_path, "ports", {"seed": [0]}, {"steps": 20, "checkpoint_steps": []})
    each = {"nodes": 2, "gpus_per_node": 1, "mem_gb": 4}
    profile = write_profile(tmp_path, evaluate="inline", training=[each], evaluation=None)
    cluster.scontrol("update", "partitionname=low", "state=down")
    try:
        with socket.socket() as of_the_shell, socket.socket() as of_the_job:
            of_the_shell.bind(("", 0))
            of_the_shell.listen()
            monkeypatch.setenv("MASTER_PORT", str(of_the_shell.getsockname()[1]))
            monkeypatch.setenv("MASTER_ADDR", "nowhere.invalid")
            submit(path, profile, tmp_path)
            (job,) = job_ids(tmp_path / "ports").values()
            try:
                of_the_job.bind(("", random.Random(job).randint(20000, 60000)))  # as submitit has it
                of_the_job.listen()
            except OSError as error:  # any connection may have been given it, and then it is held already
                if error.errno != errno.EADDRINUSE:
                    raise
            cluster.scontrol("update", "partitionname=low", "state=up")
            cluster.wait_until(lambda: all_finished(path, tmp_path), 120, "two ranks are done")
    finally:
        cluster.scontrol("update", "partitionname=low", "state=up")
    (folder,) = folders(path, tmp_path).values()
    (start,) = starts(folder)
    assert (start["world_size"], start["node"]) == (2, "n[1-2]")
    assert not (folder / "failures.jsonl").exists()
    assert not list((tmp_path / "ports" / "submissions" / "0001").glob("ranks/*")), "no port of a start that is over"
