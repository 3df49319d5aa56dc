"""What tests do with the cluster that cluster.sh runs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

SCRIPT = Path(__file__).with_name("cluster.sh")

T = TypeVar("T")


@dataclass(frozen=True)
class Cluster:
    """Its commands see neither what a test does to the environment nor the user's own settings of SLURM."""

    conf: Path

    def sbatch(self, *args: str) -> str:
        """Submit a job, whose output is dropped; returns its id."""
        return self._run("sbatch", "--parsable", "--output=/dev/null", *args).strip()

    def squeue(self, *args: str) -> str:
        return self._run("squeue", *args)

    def scontrol(self, *args: str) -> str:
        return self._run("scontrol", *args)

    def sacct(self, *args: str) -> str:
        return self._run("sacct", *args)

    def kill_node(self, name: str) -> None:
        """Like a power failure: all its processes are gone; SLURM requeues its jobs after some 15 s."""
        self._run(str(SCRIPT), "kill-node", name)

    def freeze_node(self, name: str) -> None:
        """Like a node that hangs: its connections stay open."""
        self._run(str(SCRIPT), "freeze-node", name)

    def start_node(self, name: str) -> None:
        """Power it on again; a frozen one is killed first."""
        self._run(str(SCRIPT), "start-node", name)

    def wait_until(self, condition: Callable[[], T | None], seconds: float, what: str) -> T:
        """The first value of `condition` that is true."""
        end = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > end:
                pytest.fail(f"after {seconds} s still not: {what}\n{self.squeue('--states=all')}")
            time.sleep(0.3)
        return value

    def reset(self) -> None:
        """End all jobs and mend all nodes, for the next test."""
        self._run(str(SCRIPT), "reset")

    def _run(self, *command: str) -> str:
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "SLURM_CONF": str(self.conf),
            "DITBENCH_SLURM_TEST": str(self.conf.parent),
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout
