"""Try a parser on many disturbed files, count what happens, and keep what broke it."""

from __future__ import annotations

import base64
import json
import resource
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from disturbed import disturb
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from parsers import Parser, example, written

FOUND = Path(__file__).parent / "found"
# For one file; the example's own are kilobytes, read in milliseconds.
MEMORY_BYTES = 2**31
SECONDS = 20


# Of what was raised, the file's path under its folder, and its content.
OnFault = Callable[[Exception, Path, bytes], None]


class TooSlow(Exception):
    """Reading took longer than `SECONDS`."""


@dataclass
class Tally:
    """What happened: files tried, how many were read as if whole, how many refused; faults by their place."""

    tried: int = 0
    read: int = 0
    refused: int = 0
    faults: dict[str, str] = field(default_factory=dict)


@contextmanager
def limits() -> Iterator[None]:
    """Little memory beyond what is in use, so that a declared size which is believed fails at once."""

    def too_slow(*_: object) -> None:
        raise TooSlow

    used = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, too_slow)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, before[1]))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def is_read(parser: Parser, folder: Path) -> bool:
    """Read disturbed files: True if they are read, False if refused as they must be; else raises what they do."""
    try:
        with limits():
            parser.read(folder)
    except parser.refuses as error:
        assert str(error).strip(), f"{type(error).__name__} says nothing"
        return False
    return True


def fuzz(parser: Parser, examples: int, seed_: int, on_fault: OnFault, tally: Tally) -> None:
    """Disturb and read; `on_fault` gets what was raised and the file, and raises where the first fault is to end it."""
    with tempfile.TemporaryDirectory() as home:
        made, scratch = Path(home, "made"), Path(home, "scratch")
        written(parser, made)

        # hypothesis's own checks are of tests that it shrinks for people; here a file takes as long as it takes.
        @seed(seed_)
        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            suppress_health_check=[*HealthCheck],  # pyright: ignore[reportArgumentType]
            phases=[Phase.generate],
        )
        @given(st.data())
        def one(data: st.DataObject) -> None:
            with example(parser, made, scratch) as paths:
                path = paths[data.draw(st.integers(0, len(paths) - 1))]
                disturb(data.draw, path)
                content = path.read_bytes()
                tally.tried += 1
                try:
                    if is_read(parser, scratch):
                        tally.read += 1
                    else:
                        tally.refused += 1
                except Exception as error:
                    on_fault(error, path.relative_to(scratch), content)

        one()


def place(error: BaseException) -> str:
    """Which fault it is: the type, and the last line of the suite's own code that it came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_ours(frame.filename)]
    own = [frame for frame in frames if "/tests/" not in frame.filename] or frames
    return f"{type(error).__name__} at {Path(own[-1].filename).relative_to(_root(own[-1].filename))}, {own[-1].name}"


def _is_ours(name: str) -> bool:
    return any(f"/{folder}/" in name for folder in ("models", "bench", "sweeps", "analysis", "tests")) and (
        "site-packages" not in name
    )


def _root(name: str) -> Path:
    path = Path(name)
    return next(parent for parent in path.parents if (parent / "pyproject.toml").exists())


def keep(parser: Parser, fault: str, path: Path, content: bytes) -> None:
    """Keep a file that broke a parser; the tests read it ever after."""
    name = f"{parser.name}-{fault}"
    name = "".join(c if c.isalnum() else "-" for c in name).lower()[:120]
    FOUND.mkdir(exist_ok=True)
    record = {"parser": parser.name, "fault": fault, "file": str(path), "content": base64.b64encode(content).decode()}
    (FOUND / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def found() -> list[dict[str, Any]]:
    """The files that once broke a parser."""
    return [json.loads(path.read_text()) for path in sorted(FOUND.glob("*.json"))]
