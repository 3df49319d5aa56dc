"""Commands in children of a process that has imported everything: they start in milliseconds, torch in seconds.

The parent must never compute with torch itself: a fork of a process with worker threads may hang.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# As the command line ends: 1 or 2 is a refusal in one line. What it never ends with: an exception nobody expected.
DONE, REFUSED, TRACEBACK = 0, 1, 70
TIMEOUT_SECONDS = 300


@dataclass
class Child:
    """A child at work, in a process group of its own with whatever it starts."""

    pid: int
    status: int | None = None  # negative: the signal that ended it

    def wait(self) -> int:
        """Its status, and the end of all that it started."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"process {self.pid} did not end within {TIMEOUT_SECONDS} s")
            time.sleep(0.002)
        assert self.status is not None
        return self.status

    def poll(self) -> int | None:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def kill(self, whole_group: bool = True) -> None:
        """SIGKILL: as when a machine goes down, or this process alone."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if whole_group else os.kill)(self.pid, signal.SIGKILL)


def start(work: Callable[[], object], log: Path) -> Child:
    """Begin `work` in a child that prints to the end of `log`."""
    pid = os.fork()
    if pid:
        return Child(pid)
    status = TRACEBACK
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout = sys.stderr = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
        work()
        status = DONE
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else DONE if ended.code is None else REFUSED
    except BaseException as error:
        status = REFUSED if _is_expected(error) else TRACEBACK
        traceback.print_exc()
    finally:
        os._exit(status)


def done(work: Callable[[], object], log: Path) -> int:
    """Run `work` in a child; its status."""
    child = start(work, log)
    status = child.wait()
    child.kill()  # what it may have left running
    return status


def _is_expected(error: BaseException) -> bool:
    """Whether the command line would say it in one line."""
    from analysis.errors import ResultsError
    from bench.errors import InputError, RunError

    return isinstance(error, (InputError, RunError, ResultsError, OSError))
