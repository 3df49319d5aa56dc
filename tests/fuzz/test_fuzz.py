"""No disturbed file ends in anything but a result or one line that refuses it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from fuzzing import Tally, found, fuzz, is_read
from parsers import PARSERS, Parser, written

EXAMPLES = 40


@pytest.mark.slow
@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_disturbed_files_are_read_or_refused(parser: Parser) -> None:
    def on_fault(error: Exception, path: Path, content: bytes) -> None:
        raise AssertionError(f"{path}: {content[:2000]!r}") from error

    tally = Tally()
    fuzz(parser, EXAMPLES, 1, on_fault, tally)
    assert tally.refused or not parser.refuses, "no file was disturbed enough to be refused"


@pytest.mark.slow
@pytest.mark.parametrize("once", found(), ids=lambda once: f"{once['parser']}: {once['fault']}")
def test_what_broke_a_parser_once_does_not_again(once: dict[str, Any], tmp_path: Path) -> None:
    parser = next(parser for parser in PARSERS if parser.name == once["parser"])
    folder = tmp_path / "made"
    written(parser, folder)
    (folder / once["file"]).write_bytes(base64.b64decode(once["content"]))
    is_read(parser, folder)
