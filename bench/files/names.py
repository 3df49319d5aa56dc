"""Names and messages where not every character can be written: JSON files, and terminals of other encodings.

`analysis.results.visible` has `visible` for pictures and pages. There are two because that package imports nothing of
this one.
"""

from __future__ import annotations

import io
import os
import re
import sys

# Control characters, line and paragraph separators, what turns the direction of writing, halves of characters.
HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(name: str) -> str:
    """A file's name as text that is UTF-8 whatever its bytes are: a byte that is not becomes `\\xe9`.

    Python holds such a byte as half of a surrogate pair, which readers of JSON, and of tables, refuse.
    """
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a pair that no name of a file has, such as of a JSON file's \ud800
        return name.encode("utf-8", "backslashreplace").decode("utf-8")


def visible(text: str) -> str:
    r"""`text` as one line of characters that only show themselves, the others as Python writes them: \n, \x1b."""
    return HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), shown(text))


def write_any_text() -> None:
    """Have what the terminal's encoding lacks printed as `\\u2014`, so that no message ends a command in an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
