"""A case: a command is disturbed, what it left is looked at, the same command runs again, and all is compared."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import forked
from counts import count
from faults import FAULTS, Case, Reference, disk
from instants import watch
from targets import Target

from bench.errors import RunError

DRAWS = 6  # of an instant, where the command had ended before


@dataclass(frozen=True)
class Result:
    """Of one case. `why` says what went wrong, in words; empty where nothing did."""

    target: str
    fault: str
    number: int
    seed: str
    what: str
    injected: bool
    survived: bool
    half_written: int
    rows_lost: int
    rows_doubled: int
    wrong: int
    why: str


def refer(target: Target, home: Path, features: Path) -> Reference:
    """Make what the cases start from, in `home`/template, and run the command undisturbed, three times."""
    template, counted = home / "template", home / "instants"
    target.prepare(template, features)

    def counting(folder: Path) -> None:
        watch(folder, lambda number: counted.write_text(str(number)))
        target.work(folder)

    outcomes, seconds = [], []
    for number in range(3):
        folder = home / f"undisturbed-{number}"
        shutil.copytree(template, folder, symlinks=True)
        started = time.monotonic()
        work = (lambda folder=folder: counting(folder)) if number == 0 else (lambda folder=folder: target.work(folder))
        status = forked.done(work, home / "log")
        assert status == 0, f"{target.name} undisturbed: status {status}; see {home / 'log'}"
        seconds.append(time.monotonic() - started)
        outcomes.append(target.outcome(folder))
    assert outcomes[0] == outcomes[1] == outcomes[2], f"{target.name} undisturbed: not the same twice"
    files = [path.stat() for path in (home / "undisturbed-1").rglob("*") if path.is_file()]
    before = sum(path.stat().st_blocks for path in template.rglob("*") if path.is_file())
    return Reference(
        outcome=outcomes[0],
        seconds=min(seconds[1:]),
        instants=int(counted.read_text()),
        added_bytes=512 * (sum(file.st_blocks for file in files) - before),
        largest_file=max(file.st_size for file in files),
    )


def disturb(target: Target, fault: str, number: int, seed: int, home: Path, reference: Reference) -> Result:
    """One case, with random numbers of its own; a fault that came too late is drawn again."""
    name = f"{seed}/{target.name}/{fault}/{number}"
    chance = random.Random(name)
    folder = home / "cases" / f"{fault.replace(' ', '-')}-{number}"
    what, why, half_written = None, "", 0
    for _ in range(DRAWS):
        with disk(folder, of_its_own=fault == "full disk"):
            case = Case(target, home / "template", folder, reference, chance)
            case.copy()
            try:
                what = FAULTS[fault](case)
            except AssertionError as error:
                what, why = what or "injected", f"{error} when disturbed; see {case.log}"
            if what is None:
                continue
            half_written = int(forked.done(lambda: target.inspect(folder, reference.outcome), case.log) != 0)
            status, counts = forked.done(case.command, case.log), None
            if status:
                why = why or f"the same command again ended with status {status}; see {case.log}"
            else:
                try:
                    counts = count(reference.outcome, target.outcome(folder))
                except (RunError, OSError, ValueError) as error:
                    why = why or f"what it left cannot be read: {error}"
            if half_written:
                why = why or f"something half-written counts as whole; see {case.log}"
            elif counts and (counts.lost or counts.doubled or counts.wrong):
                why = why or f"{counts}"
            if not why:
                case.log.unlink(missing_ok=True)
        lost, doubled, wrong = (counts.lost, counts.doubled, counts.wrong) if counts else (0, 0, 1)
        return Result(
            target.name, fault, number, name, what, True, not why, half_written, lost, doubled, wrong, why
        )  # fmt: skip
    return Result(target.name, fault, number, name, "it had ended before", False, True, 0, 0, 0, 0, "")


def start_case(target: Target, fault: str, number: int, seed: int, home: Path, reference: Reference, out: Path) -> int:
    """`disturb` in a process of its own, which writes the result as JSON to `out`; its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        out.write_text(json.dumps(asdict(disturb(target, fault, number, seed, home, reference))))
        status = 0
    except BaseException:
        import traceback

        out.with_suffix(".error").write_text(traceback.format_exc())
    finally:
        os._exit(status)
