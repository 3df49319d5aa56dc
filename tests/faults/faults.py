"""What is done to a command while it works. Each fault draws its instant from the case's own random numbers."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import forked
import power_loss
from forked import Child
from instants import watch
from targets import Outcome, Target

NOBODY = 65534
MIB = 1 << 20
TMPFS_MIB = 64
YEAR = 365 * 86400.0


@dataclass(frozen=True)
class Reference:
    """The command undisturbed: what it leaves, how long it takes, how many instants it has, what it adds to a disk."""

    outcome: Outcome
    seconds: float
    instants: int
    added_bytes: int
    largest_file: int


@dataclass
class Case:
    """One command in a folder of its own, about to be disturbed."""

    target: Target
    template: Path
    folder: Path
    reference: Reference
    chance: random.Random

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    def copy(self) -> None:
        shutil.copytree(self.template, self.folder, symlinks=True, dirs_exist_ok=True)

    def command(self) -> None:
        self.target.work(self.folder)

    def start(self, before: Callable[[], object] = lambda: None) -> Child:
        """Begin the command in a child that does `before` first."""

        def work() -> None:
            before()
            self.command()

        return forked.start(work, self.log)

    def instant(self) -> int:
        return self.chance.randint(1, self.reference.instants)

    def at_instant(self, number: int, act: Callable[[], object]) -> Callable[[], None]:
        """For `start`: watch, and act at that instant."""
        return lambda: watch(self.folder, lambda count: act() if count == number else None)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# --- faults: each disturbs a case and says what it did; None where the command had ended before


def kill(case: Case) -> str | None:
    """SIGKILL, at an instant or after a time; of a launcher also its jobs, or one job alone."""
    whole_group = case.chance.random() < 0.5
    if case.chance.random() < 0.5:
        number = case.instant()
        act = (lambda: os.killpg(0, signal.SIGKILL)) if whole_group else die
        child = case.start(case.at_instant(number, act))
        status, said = _wait(child), f"at instant {number} of {case.reference.instants}"
    else:
        seconds = case.chance.uniform(0, case.reference.seconds)
        child = case.start()
        time.sleep(seconds)
        ended = child.poll()
        child.kill(whole_group)
        status, said = (_wait(child) if ended is None else ended), f"after {seconds:.3f} s"
    assert status in (0, -signal.SIGKILL), f"it ended with status {status} before it was killed"
    return said if status else None


def lose_power(case: Case) -> str | None:
    """SIGKILL at an instant, and what was not synced is dropped."""
    number, shadow = case.instant(), case.folder.with_name(f"{case.folder.name}.shadow")

    def before() -> None:
        power_loss.record(case.folder, shadow)
        watch(case.folder, lambda count: os.killpg(0, signal.SIGKILL) if count == number else None)

    child = case.start(before)
    if (status := _wait(child)) != -signal.SIGKILL:
        assert status == 0, f"it ended with status {status} before the power was lost"
        shutil.rmtree(shadow)
        return None
    return f"at instant {number}: {power_loss.drop_unsynced(case.folder, shadow, case.chance, case.target.elsewhere)}"


def fill_disk(case: Case) -> str | None:
    """A disk, or where this user may mount none a limit on files, that is full part of the way; later it has room."""
    share = case.chance.uniform(0, 1)
    if not os.path.ismount(case.folder):
        limit = int(share * case.reference.largest_file)
        status = _wait(case.start(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))))
        return f"no file beyond {limit} bytes" if status else None
    used = shutil.disk_usage(case.folder).used
    room = int(share * case.reference.added_bytes)
    _remount(case.folder, f"size={used + room}")
    status = _wait(case.start())
    _remount(case.folder, f"size={TMPFS_MIB}m")
    return f"with room for {room} bytes" if status else None


def write_protect(case: Case) -> str | None:
    """Every folder and file becomes read-only at an instant, for a user who is not root; later it is not."""
    if os.geteuid() == 0:
        for path in (case.folder, *case.folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    number = case.instant()

    def protect() -> None:
        for path in (*case.folder.rglob("*"), case.folder):
            with contextlib.suppress(OSError):
                path.chmod(0o555)

    def before() -> None:
        if os.geteuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        case.at_instant(number, protect)()

    status = _wait(case.start(before))
    for path in (case.folder, *case.folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    return f"from instant {number} on" if status else None


def jump_clock(case: Case) -> str | None:
    """The clock jumps by years at three instants, the third kills in every other case; then files have other times."""
    numbers = sorted(case.instant() for _ in range(3))
    kills = case.chance.random() < 0.5
    jumps = [case.chance.uniform(-10, 10) * YEAR for _ in numbers]

    def before() -> None:
        clock = _Clock()

        def on_instant(count: int) -> None:
            for number, jump in zip(numbers, jumps, strict=True):
                if count == number:
                    clock.offset = jump
            if kills and count == numbers[-1]:
                os.killpg(0, signal.SIGKILL)

        clock.offset = jumps[0]
        watch(case.folder, on_instant)

    _wait(case.start(before))
    for path in case.folder.rglob("*"):
        moment = time.time() + case.chance.uniform(-1, 1) * YEAR
        if not path.is_symlink():
            os.utime(path, (moment, moment))
    return f"at instants {numbers}{', then killed' if kills else ''}"


class _Clock:
    """Python's clock of the day, `offset` seconds wrong; time that only counts up is the kernel's promise."""

    def __init__(self) -> None:
        self.offset = 0.0
        now, now_ns, local, utc, text = time.time, time.time_ns, time.localtime, time.gmtime, time.strftime
        time.time = lambda: now() + self.offset
        time.time_ns = lambda: now_ns() + int(self.offset * 1e9)
        time.localtime = lambda seconds=None: local(time.time() if seconds is None else seconds)
        time.gmtime = lambda seconds=None: utc(time.time() if seconds is None else seconds)
        time.strftime = lambda form, when=None: text(form, time.localtime() if when is None else when)


def start_twice(case: Case) -> str | None:
    """The same command once more while it works; in every other case the first is killed meanwhile."""
    first = case.start()
    between = case.chance.uniform(0, 0.7) * case.reference.seconds
    time.sleep(between)
    second = case.start()
    kills = case.chance.random() < 0.5
    if kills:
        time.sleep(case.chance.uniform(0, 0.7) * case.reference.seconds)
        first.kill(whole_group=False)
    statuses = [_wait(child) for child in (first, second)]
    if forked.TRACEBACK in statuses:
        raise AssertionError(f"a traceback; see {case.log}")
    return f"{between:.3f} s apart{', the first killed' if kills else ''}"


FAULTS: dict[str, Callable[[Case], str | None]] = {
    "kill": kill,
    "power loss": lose_power,
    "full disk": fill_disk,
    "read-only folder": write_protect,
    "clock jumps": jump_clock,
    "two processes": start_twice,
}


def _wait(child: Child) -> int:
    """Its status; jobs that a killed launcher left go on for the next to find."""
    status = child.wait()
    if status == forked.TRACEBACK:
        raise AssertionError("a traceback")
    return status


# --- disks


@contextmanager
def disk(folder: Path, of_its_own: bool) -> Iterator[None]:
    """An empty folder; if wanted, and if this user may mount, on a small disk of its own."""
    folder.mkdir(parents=True)
    mounted = of_its_own and _mount(folder)
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=True, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def _mount(folder: Path) -> bool:
    options = f"size={TMPFS_MIB}m,mode=755"
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
        )
    except FileNotFoundError:
        return False
    return done.returncode == 0


def _remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True, capture_output=True)
