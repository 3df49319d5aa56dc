"""Data have one name in every command: the papers' tables, a results folder, or its name in results/."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from run_folders import collect, write_run
from typer.testing import CliRunner

from analysis.errors import ResultsError
from analysis.results.named import results_folder
from ditbench import app


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder but for runs/study and results/study."""
    monkeypatch.chdir(tmp_path)
    for label in ("S/4", "B/2", "L/1"):
        write_run(tmp_path / "runs" / "study", label)
    collect(tmp_path / "runs" / "study", tmp_path / "results" / "study")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def refusal(*arguments: str) -> str:
    done = run(*arguments)
    assert isinstance(done.exception, ResultsError), done.output
    message = str(done.exception)
    assert "\n" not in message
    return message


def test_published_is_always_the_papers(study: Path) -> None:
    shutil.copytree(study / "results" / "study", study / "published")
    shutil.copytree(study / "results" / "study", study / "results" / "published")
    assert results_folder("published") is None
    assert results_folder("./published") == Path("published")
    assert run("table", "summary", "published").output.count("XL/2") > 1


def test_a_bare_name_is_a_folder_here_or_in_results(study: Path) -> None:
    assert results_folder("study") == results_folder("results/study/") == Path("results/study")
    (study / "study").mkdir()  # holds no results: no reason to refuse those that there are
    assert results_folder("study") == Path("results/study")
    shutil.copytree(study / "results" / "study", study / "study", dirs_exist_ok=True)
    assert results_folder("study") == Path("study")
    assert results_folder(str(study / "study")) == study / "study"


COMMANDS: list[Any] = [
    ["table", "summary"],
    ["fit", "--form", "power", "--intervals", "profile"],
    ["compare", "--between", "S/4,B/2"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_old_spellings_say_the_same(study: Path, command: list[str]) -> None:
    new = run(*command, "study")
    assert new.exit_code == 0, new.exception
    for option in ("--source", "--results"):
        assert run(*command, option, "results/study").output == new.output
    assert "--source" not in run(command[0], "--help").output


@pytest.mark.parametrize("command", [*COMMANDS[1:], ["advise", "--budget", "1e-8"]], ids=lambda command: command[0])
def test_what_is_no_data_is_refused_with_what_is_there_instead(study: Path, command: list[str]) -> None:
    assert "no such results" in refusal(*command, "stduy") and "study" in refusal(*command, "stduy")
    assert "`ditbench collect runs/study` makes results/study" in refusal(*command, "runs/study")
    (one,) = (study / "runs" / "study").glob("*s-4*/")
    assert "is one run; `ditbench collect " in refusal(*command, str(one))
    assert "its folder, results/study" in refusal(*command, "results/study/runs.csv")
    assert "holds no results" in refusal(*command, "results")
    assert "DATA: missing" in refusal(*command)
    assert "no name" in refusal(*command, "")


def test_the_folder_of_the_papers_tables_is_called_published() -> None:
    papers = Path(__file__).parents[2] / "results" / "published"
    with pytest.raises(ResultsError, match="the word published"):
        results_folder(str(papers))
