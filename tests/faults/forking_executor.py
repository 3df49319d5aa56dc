"""submitit's local executor, but that a job is a fork of the launcher: no seconds of imports for each."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class ForkingExecutor:
    """What `sweeps.local` uses of `submitit.LocalExecutor`."""

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)

    def update_parameters(self, **parameters: Any) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> ForkedJob:
        pid = os.fork()
        if pid:
            return ForkedJob(pid, self._folder / f"{pid}_0_result.pkl")
        status = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # As submitit's jobs know themselves.
            os.environ |= {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": str(os.getpid())}
            os.environ |= {"SUBMITIT_FOLDER": str(self._folder), "SUBMITIT_LOCAL_GLOBALID": "0"}
            os.environ |= {"SUBMITIT_LOCAL_LOCALID": "0", "SUBMITIT_LOCAL_NTASKS": "1", "SUBMITIT_LOCAL_NNODES": "1"}
            result = function(*arguments)
            (self._folder / f"{os.getpid()}_0_result.pkl").write_bytes(pickle.dumps(result))
            status = 0
        except BaseException as error:
            print(f"job {os.getpid()}: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)


class ForkedJob:
    """What `sweeps.local` uses of a submitit job."""

    def __init__(self, pid: int, result: Path) -> None:
        self._pid, self._ended = pid, False
        self.paths = SimpleNamespace(result_pickle=result)

    def done(self) -> bool:
        if not self._ended:
            self._ended = os.waitpid(self._pid, os.WNOHANG)[0] != 0
        return self._ended

    def cancel(self) -> None:
        if not self.done():
            os.kill(self._pid, signal.SIGTERM)

    def exception(self) -> Exception | None:
        return None if self.paths.result_pickle.exists() else RuntimeError("it died")

    def result(self) -> Any:
        return pickle.loads(self.paths.result_pickle.read_bytes())
