"""The tests of this folder run on a real SLURM cluster, which they start on this machine."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import SCRIPT, Cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put these tests last: the cluster stays up until the session ends, and other tests must not see one."""
    items.sort(key=is_here)
    for item in filter(is_here, items):
        item.add_marker("slurm")


def is_here(item: pytest.Item) -> bool:
    return item.path.is_relative_to(SCRIPT.parent)


def obstacle() -> str | None:
    """Why the cluster cannot run here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "the SLURM cluster of the tests needs Linux and root"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    commands = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd")
    missing = [command for command in commands if not shutil.which(command, path=path)]
    if missing:
        return f"no {', '.join(missing)} here: run tests/slurm/cluster.sh install (on Debian)"
    return None


@pytest.fixture(scope="session", autouse=True)
def cluster() -> Iterator[Cluster]:
    if reason := obstacle():
        if os.environ.get("DITBENCH_REQUIRE_SLURM") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with (
        Path(tempfile.gettempdir(), "ditbench-slurm-test.lock").open("w") as lock,
        pytest.MonkeyPatch.context() as patch,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)  # another session would end the jobs of this one: it waits for its turn
        up = subprocess.run([SCRIPT, "reset"], capture_output=True, text=True)
        assert up.returncode == 0, up.stderr
        conf = Path(up.stdout.strip().removeprefix("export SLURM_CONF="))
        patch.setenv("SLURM_CONF", str(conf))
        yield Cluster(conf)
        if os.environ.get("DITBENCH_KEEP_SLURM") != "1":
            subprocess.run([SCRIPT, "down"], check=True, capture_output=True)


@pytest.fixture(autouse=True)
def _reset(cluster: Cluster) -> Iterator[None]:
    """Tests are independent: none leaves jobs or broken nodes behind."""
    yield
    cluster.reset()
