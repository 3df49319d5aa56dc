"""Names and messages where not every character can be written: JSON files, and terminals of other encodings."""

from __future__ import annotations

import io
import os
import sys


def shown(name: str) -> str:
    """A file's name as text that is UTF-8 whatever its bytes are: a byte that is not becomes `\\xe9`.

    Python holds such a byte as half of a surrogate pair, which readers of JSON, and of tables, refuse.
    """
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a pair that no name of a file has, such as of a JSON file's \ud800
        return name.encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(message: str) -> str:
    """A message as one line that a terminal shows and does not obey: a control character becomes `\\x1b`."""
    text = " ".join(shown(message).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def write_any_text() -> None:
    """Have what the terminal's encoding lacks printed as `\\u2014`, so that no message ends a command in an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
