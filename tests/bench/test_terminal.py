"""What is written to a terminal: names move no cursor and are no markup, and what it cannot show ends no command."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import typer
import yaml
from command_line import ditbench
from hostile_names import NAMES, names
from hypothesis import example, given
from recipes import TINY
from rich.progress import Progress, TextColumn

from bench.commands.terminal import console, protected
from bench.commands.text_table import print_table
from bench.files.names import HIDDEN, visible


def written(text: str, encoding: str = "utf-8") -> str:
    """What comes of `text` to a terminal of that encoding."""
    terminal = io.TextIOWrapper(io.BytesIO(), encoding, errors="strict", newline="\n")
    with redirect_stdout(terminal), protected():
        print(text, end="", flush=True)
    terminal.seek(0)
    return terminal.read()


@given(names)
@example("\x1b]8;;http://x\x07")
def test_nothing_that_is_printed_moves_the_cursor(name: str) -> None:
    shown = written(f"a\tb\n{name}\n")
    assert not HIDDEN.search(shown.replace("\n", "").replace("\t", ""))
    assert shown.startswith("a\tb\n")
    assert visible(shown) == visible(f"a\tb\n{name}\n")


def test_what_the_encoding_lacks_is_an_escape() -> None:
    assert written("é日😀\x1b", "ascii") == r"\xe9\u65e5\U0001f600\x1b"
    assert written("é日", "latin-1") == "é\\u65e5"
    assert written("\udcff", "utf-8") == r"\xff"


def test_streams_are_back_afterwards_and_stderr_is_the_same() -> None:
    err = io.StringIO()
    with redirect_stderr(err):
        before = sys.stdout, sys.stderr
        with pytest.raises(SystemExit), protected():
            typer.echo("\x1b[2J", err=True, color=True)
            sys.exit(3)
        assert (sys.stdout, sys.stderr) == before
    assert err.getvalue() == "\\x1b[2J\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_table_has_a_line_a_row(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["model", "n"], [[name, "1"], ["second", "2"]], [True, False])
    assert [line.rsplit(maxsplit=1)[-1] for line in capsys.readouterr().out.splitlines()] == ["n", "1", "2"]


@pytest.mark.parametrize("name", NAMES)
def test_bars_show_names_as_they_are(name: str) -> None:
    out = io.StringIO()
    with redirect_stdout(out), protected():
        shown = console()
        shown.width = 1000
        with Progress(TextColumn("{task.description}", markup=False), console=shown) as bar:
            bar.add_task(visible(name))
        shown.print(visible(name), soft_wrap=True)
    assert out.getvalue().splitlines() == 2 * [visible(name)]


@pytest.mark.slow
def test_a_run_whose_label_is_markup(tmp_path: Path) -> None:
    label = "[/red] [bold]S/4 \x1b[2J:smile:"
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(TINY | {"label": label}))
    done = ditbench("run", tmp_path / "recipe.yaml", "--folder", tmp_path / "runs" / "[/red]")
    assert (done.status, done.err) == (0, "")
    assert f"{visible(label)}: step 2 of 12: " in done.out
    assert done.out.splitlines()[-1] == str(tmp_path / "runs" / "[/red]")


@pytest.mark.parametrize("arguments", [("fit", "a", "\x1b[31mb"), ("table", "\x1b[2J"), ("figure", "\x1b[2J")])
def test_what_is_wrong_on_the_command_line_is_shown(arguments: tuple[str, ...]) -> None:
    done = ditbench(*arguments)
    assert done.status == 2
    assert "\\x1b[" in done.err
    assert "\x1b" not in done.out + done.err


@pytest.mark.slow
def test_a_strict_terminal_of_few_characters_ends_no_command(tmp_path: Path) -> None:
    code = "from ditbench import main; main()"
    command = [sys.executable, "-c", code, "table", "summary", "--results", "results/digits"]
    root = Path(__file__).parents[2]
    environment = {"PYTHONIOENCODING": "ascii:strict", "PYTHONPATH": str(root), "SOURCE_DATE_EPOCH": "never"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"Fr\xe9chet distance \u2193" in done.stdout
