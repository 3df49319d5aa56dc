"""What is written for people: a name is data there, and what the terminal cannot show ends no command."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

from typer.core import TyperGroup

from bench.files.names import visible

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def protected() -> Iterator[None]:
    """Make all that is written to stdout and stderr, by whomever, `visible` lines, for the time of a `with` block.

    Tabs stay as well.
    """
    before = sys.stdout, sys.stderr
    out, err = (stream and _Visible(stream) for stream in before)  # one that is closed from the start is None
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def console(stderr: bool = False) -> Console:
    """rich's console, which is not `protected`: it moves the cursor. Names in what it prints have to be `visible`."""
    from rich.console import Console

    stream: Any = sys.stderr if stderr else sys.stdout
    file: Any = _Encoded(stream.stream if isinstance(stream, _Visible) else stream)
    # rich would take FORCE_COLOR for a terminal; a dumb one cannot move its cursor.
    is_terminal = bool(stream) and stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    return Console(file=file, force_terminal=is_terminal, markup=False, emoji=False, highlight=False)


class WholeSentences(TyperGroup):
    """A command's help that cuts no sentence about its commands, however narrow the terminal."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        names = self.list_commands(ctx)
        commands = [
            (name, command) for name in names if (command := self.get_command(ctx, name)) and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(limit=1000)) for name, command in commands])


class _Encoded:
    """Writes to `stream`, and what its encoding lacks as escapes. In all else it is that stream."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        encoding = self.stream.encoding or "utf-8"  # none: of a stream in memory
        self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Visible(_Encoded):
    """Its lines are `visible`."""

    encoding = "utf-8"  # it takes any text; else typer would write past it

    def write(self, text: str) -> int:
        parts = re.split("([\n\t])", text)
        super().write("".join(part if part in ("\n", "\t") else visible(part) for part in parts))
        return len(text)
