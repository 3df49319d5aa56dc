"""Waiting for SLURM: whoever waits is told what for, and nothing is waited for without end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

# A person takes a command that is silent for longer for one that hangs.
SAY_AFTER_SECONDS = 2.0
SAY_AGAIN_SECONDS = 30.0
TICK_SECONDS = 0.25
# Waits that follow each other at once are one silence.
APART_SECONDS = 1.0

_silence_began = 0.0
_last_wait_ended = float("-inf")
_said = ("", 0.0)  # what was said last, and when


def run(command: Sequence[str], environment: dict[str, str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a command; its output is text, whatever is in it.

    Raises:
        subprocess.TimeoutExpired: it took longer; all its processes are ended.
        OSError: it cannot be started.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",  # names of other people's jobs may be anything
        env=environment,
        start_new_session=True,  # a wrapper may have started others, which go with it
    )
    said: tuple[str, str] | None = None

    def is_over() -> bool:
        nonlocal said
        try:
            said = process.communicate(timeout=TICK_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True

    try:
        if not _wait(is_over, timeout_s, command[0]) or said is None:
            raise subprocess.TimeoutExpired(command, timeout_s)
    except BaseException:
        _end(process)
        raise
    return subprocess.CompletedProcess(command, process.returncode, *said)


def pause(seconds: float, what: str) -> None:
    """Let some time pass; `what` it is that one waits for."""

    def is_over() -> bool:
        time.sleep(min(TICK_SECONDS, seconds))
        return False

    _wait(is_over, seconds, what)


def _wait(is_over: Callable[[], bool], seconds: float, what: str) -> bool:
    """Call `is_over`, which takes a moment, until it is true or the time has passed; returns whether it is."""
    global _silence_began, _last_wait_ended, _said
    begun = time.monotonic()
    if begun - _last_wait_ended > APART_SECONDS:
        _silence_began, _said = begun, ("", begun)
    what_then, then = _said
    say_at = then + (SAY_AGAIN_SECONDS if what == what_then else SAY_AFTER_SECONDS)
    try:
        while not is_over():
            now = time.monotonic()
            if now - begun >= seconds:
                return False
            if now >= say_at:
                print(f"waiting for {what} ({now - _silence_began:.0f} s)", file=sys.stderr, flush=True)
                _said, say_at = (what, now), now + SAY_AGAIN_SECONDS
        return True
    finally:
        _last_wait_ended = time.monotonic()


def _end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()
