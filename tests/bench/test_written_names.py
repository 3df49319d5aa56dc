"""Terminals that lack characters, readers that go away, and names that are not text: no command ends in a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from bench.files.names import shown

# A command of the suite's that says whatever the others may say, in each of their ways.
SPEAK = """
import sys
import typer
from rich.console import Console
import ditbench

@ditbench.app.command()
def speak(lines: int) -> None:
    for _ in range(lines):
        print("Fréchet \\u2265 3 \\u2014 \\N{GRINNING FACE} \\udce9")
        typer.echo("Fréchet \\u2265 3 \\u2014 \\N{GRINNING FACE}")
        Console().print("Fréchet \\u2265 3 \\u2014 \\N{GRINNING FACE}")
    print("the end")

sys.argv = ["ditbench", "speak", sys.argv[1]]
ditbench.main()
"""


def speak(lines: int, encoding: str, **how: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-c", SPEAK, str(lines)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "ascii:strict"])
def test_what_a_terminal_lacks_is_escaped(encoding: str) -> None:
    with speak(1, encoding, stdout=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, b"")
    assert out.splitlines()[-1] == b"the end"
    assert b"\\xe9" in out


@pytest.mark.parametrize("lines", [1, 5000], ids=["what fits a buffer", "more"])
def test_a_reader_that_goes_away_ends_a_command_quietly(lines: int) -> None:
    reading, writing = os.pipe()
    process = speak(lines, "utf-8", stdout=writing)
    os.close(writing)
    os.close(reading)
    with process:
        _, err = process.communicate(timeout=100)
    assert err == b""
    assert process.returncode in (0, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
@pytest.mark.parametrize("lines", [0, 5000], ids=["at the end", "in the middle"])
def test_a_full_disk_under_the_output_is_one_line_and_status_two(lines: int) -> None:
    with Path("/dev/full").open("w") as full, speak(lines, "utf-8", stdout=full.fileno()) as process:
        _, err = process.communicate(timeout=100)
    assert process.returncode == 2
    (line,) = err.decode().splitlines()
    assert line.startswith("ditbench: ")
    assert line.endswith("No space left on device")


def test_no_output_at_all_is_no_error() -> None:
    command = [sys.executable, "-c", "import ditbench; ditbench.main()", "flops", "DiT-S/2"]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], capture_output=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_name_that_is_not_utf8_is_text_for_every_reader(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9")).touch()
    (path,) = tmp_path.iterdir()
    assert shown(path.name) == "caf\\xe9"
    assert TypeAdapter(str).validate_json(json.dumps(shown(path.name))) == "caf\\xe9"
    assert shown("café \N{GRINNING FACE}") == "café \N{GRINNING FACE}"
    assert shown("\ud800") == "\\ud800"


def test_an_error_about_such_a_file_names_it(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9\x1b.npy"
    command = [sys.executable, "-c", "import ditbench; ditbench.main()", "export-samples", path, "out.npz"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, timeout=100)
    message = f"ditbench: {tmp_path}/caf\\xe9\\x1b.npy: no such file or folder\n"
    assert (done.returncode, done.stderr.decode()) == (2, message)
