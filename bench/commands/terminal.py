"""What is written for people: a name is data there, and what the terminal cannot show ends no command."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TextIO, cast

import typer
from typer.core import TyperGroup

from bench.errors import InputError
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


# What typer raises of a command line; it exports no more of its kinds than this one.
UsageError: Any = typer.BadParameter.__base__


def usage_line(error: Any) -> str | None:
    """A `UsageError` in one line: what is wrong, what is accepted, and what was meant; None: it is a command's help."""
    ctx, message = error.ctx, error.format_message().removesuffix(".")
    if ctx is not None and error.message == ctx.get_help():
        return None
    more = "" if ctx is None else f" (see {ctx.command_path} --help)"
    if hasattr(error, "possibilities"):
        return f"{error.option_name}: no such option; {accepted(error.option_name, _options(ctx))}{more}"
    if hasattr(error, "option_name"):
        return f"{error.option_name}: {message.removeprefix(f'Option {error.option_name!r} ')}"
    if getattr(error, "param", None) is None:
        usage = "" if ctx is None else f"; accepted: {_words(ctx.get_usage()).removeprefix('Usage: ')}"
        return f"{message}{usage}{more}"
    name, said = error.param.opts[-1], error.message.removeprefix("Value error, ").removesuffix(".")
    if hasattr(error, "param_type"):
        needed = _words(message.partition("Choose from:")[2]) or (error.param.help or "a value").removesuffix(".")
        return f"{name}: missing; accepted: {needed}{more}"
    if " is not one of " in said:
        given, _, choices = said.replace("'", "").partition(" is not one of ")
        return f"{name} {given}: unknown; {accepted(given, choices.split(', '))}{more}"
    # pydantic's messages are without the value.
    got = f", got {error.__cause__.errors()[0]['input']!r}" if hasattr(error.__cause__, "errors") else ""
    return f"{name}: {said}{got}{more}"


def _words(text: str) -> str:
    return " ".join(text.split())


def _options(ctx: Any) -> list[str]:
    params = [param for param in ctx.command.get_params(ctx) if not getattr(param, "hidden", False)]
    return [name for param in params for name in (*param.opts, *param.secondary_opts) if name.startswith("-")]


def accepted(name: str, names: Sequence[str]) -> str:
    """What stands in a message behind a name that is none of `names`: the nearest, if one is near, and all of them."""
    bare = {each.lstrip("-"): each for each in names}
    meant = get_close_matches(name.lstrip("-"), bare, 1)
    return f"{f'did you mean {bare[meant[0]]}? ' if meant else ''}accepted: {', '.join(names)}"


class WholeSentences(TyperGroup):
    """A command's help that cuts no sentence about its commands, however narrow the terminal."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-"):
            more = f" (see {ctx.command_path} --help)"
            raise InputError(f"{args[0]}: no such command; {accepted(args[0], names)}{more}")
        return super().resolve_command(ctx, args)

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
