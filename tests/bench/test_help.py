"""Help and version: defaults that are true, sentences that end."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from command_line import ditbench

COMMANDS = (
    "run", "collect", "verify", "report", "demo", "prepare", "doctor", "encode", "sample", "search", "evaluate",
    "baselines",
    "reference", "export", "export-samples", "sweep list", "sweep plan", "sweep submit", "sweep status", "sweep logs",
    "sweep why", "sweep cancel", "perf ranks", "perf data", "perf all",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_no_default_stands_for_another(command: str) -> None:
    """An option whose default depends on others says so in words, and in no brackets."""
    done = ditbench(*command.split(), "--help", COLUMNS="200")
    assert done.status == 0
    for line in done.out.splitlines():
        words, _, shown = line.partition("[default: ")
        assert not shown.startswith((".", "None", ";", "]")), line
        assert not (shown and "default:" in words), line


@pytest.mark.parametrize("columns", ["20", "60", "80", "200"])
@pytest.mark.parametrize("group", ["", "sweep", "perf"])
def test_what_a_command_does_is_said_in_whole_sentences(group: str, columns: str) -> None:
    out = ditbench(*group.split(), "--help", COLUMNS=columns).out
    _, _, commands = out.partition("Commands:\n")
    assert "..." not in commands
    entries = [line for line in commands.splitlines() if line[:3].strip()]
    assert len(entries) >= 7
    assert commands.rstrip().endswith(".")
    assert max(map(len, out.splitlines())) <= 80


def test_the_version_is_the_packages() -> None:
    done = ditbench("--version")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"ditbench {version('ditbench')}")
    assert len(done.out.splitlines()) == 1
