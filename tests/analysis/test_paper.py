"""`ditbench paper`: what is written fits together, and compiles, whatever names are in it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import typer
from drawn_figures import study
from typer.testing import CliRunner

from analysis import figures
from analysis.commands.paper import paper
from analysis.errors import ResultsError
from analysis.figures.sources import Source, published_source
from analysis.paper.write import compile_page, write_paper

LABELS = {"S/4": r"50 % #1_{a} \b $x$ ~^", "B/2": "Müller's 模 Ελ – ×", "XL/1": '[0pt] <i>"&|`--'}
STUDY = "Größe 模 #1 {a}_b%"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Three models, and all names such that LaTeX would read them as its own."""
    source = study(tmp_path_factory.mktemp("study"), list(LABELS))

    def renamed(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(**{name: table[name].map(LABELS.get) for name in ("label", "network")})

    tables = source.tables
    runs, train, evals = renamed(tables.runs), renamed(tables.train), renamed(tables.evals)
    return Source(STUDY, replace(tables, runs=runs, train=train, evals=evals))


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the catalogue of figures be these, so that drawing takes a moment."""
    # A new one: what is taken out of the catalogue itself would come back in another order, for all later tests.
    monkeypatch.setattr(figures, "CATALOGUE", {name: e for name, e in figures.CATALOGUE.items() if name in names})


def inputs(page: Path) -> list[str]:
    return re.findall(r"\\input\{(.*)\}", page.read_text(encoding="ascii"))


def test_the_page_has_all_that_is_written_by_the_papers_numbers(
    tmp_path: Path, hostile: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "gflops-vs-fid", "residuals", "seeds")
    written = write_paper([hostile, published_source()], tmp_path)
    assert inputs(tmp_path / "paper.tex") == [
        "fig8-gflops-vs-fid",
        "residuals",
        "table-summary-gr-e-1-a-b",
        "table-correlations-gr-e-1-a-b",
        "table-summary-published",
        "table-correlations-published",
        "table-families",
        "table-reproductions",
    ]
    assert sorted(written.files) == sorted(tmp_path.iterdir())
    texts = {path.stem: path.read_text(encoding="ascii") for path in tmp_path.glob("*.tex")}
    assert set(texts) == {*inputs(tmp_path / "paper.tex"), "paper"}
    included = re.findall(r"\\includegraphics\[.*\]\{(.*)\}", "".join(texts.values()))
    assert {tmp_path / name for name in included} == set(tmp_path.glob("*.pdf"))
    labels = re.findall(r"\\label\{(.*)\}", "".join(texts.values()))
    assert len(set(labels)) == len(labels) == len(texts) - 1
    assert {"fig:gflops-vs-fid", "fig:residuals", "tab:summary-published"} <= set(labels)
    assert all("usepackage{booktabs" in texts[name] for name in texts if name.startswith("table"))
    said = "\n".join(written.left_out)
    assert "seeds: not drawn" in said and f"table published: not made: {STUDY}: " in said


def test_one_study_has_tables_named_as_the_command_for_tables_labels_them(
    tmp_path: Path, hostile: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "residuals")
    write_paper([hostile], tmp_path, "one")
    assert inputs(tmp_path / "paper.tex")[-2:] == ["table-summary", "table-correlations"]
    assert r"\label{tab:summary}" in (tmp_path / "table-summary.tex").read_text()
    assert r"\begin{figure}" in (tmp_path / "residuals.tex").read_text()
    assert (
        r"50 \% \#1\_\{a\} \textbackslash{}b \$x\$ \textasciitilde{}\textasciicircum{}"
        in (tmp_path / "table-summary.tex").read_text()
    )


def test_a_paper_of_another_hand_is_not_written_over(tmp_path: Path, hostile: Source) -> None:
    (tmp_path / "paper.tex").write_text("mine")
    with pytest.raises(ResultsError, match=r"paper.tex is not of `ditbench paper` and stays"):
        write_paper([hostile], tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_studies_whose_names_differ_in_letters_that_files_lack_have_tables_of_their_own(
    tmp_path: Path, hostile: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "loss")
    write_paper([replace(hostile, name="a b"), replace(hostile, name="a_b"), replace(hostile, name="模")], tmp_path)
    names = {"summary-a-b-1", "summary-a-b-2", "summary-results-3"}
    assert names <= {path.stem.removeprefix("table-") for path in tmp_path.glob("table-*")}


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str = "") -> None:
    """Let pdflatex be `script`, or nothing."""
    if script:
        (folder / "pdflatex").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "pdflatex").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_without_pdflatex_nothing_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, monkeypatch)
    assert compile_page(tmp_path) is None


def test_the_first_error_is_said_and_the_page_of_before_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = r"(./a.tex\n./a.tex:4: Undefined control sequence.\nl.4 \\\\oops\n! ==> Fatal error"
    installed(tmp_path, monkeypatch, f"printf '{said}'; exit 1")
    (tmp_path / "paper.pdf").write_bytes(b"before")
    with pytest.raises(ResultsError, match=r"paper.tex does not compile: ./a.tex:4: Undefined control sequence.; see"):
        compile_page(tmp_path)
    assert not (tmp_path / "paper.pdf").exists()
    assert "oops" in (tmp_path / "paper.log").read_text()


def test_the_command_ends_with_status_1_where_pdflatex_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "decoders")
    app = typer.Typer(rich_markup_mode=None)
    app.command()(paper)
    out = ["--out", str(tmp_path / "out")]
    installed(tmp_path, monkeypatch)
    done = CliRunner().invoke(app, out)
    assert (done.exit_code, "pdflatex is not installed" in done.stderr) == (0, True)
    assert done.stdout.split()[-1] == str(tmp_path / "out" / "paper.tex")
    installed(tmp_path, monkeypatch, "echo '! Emergency stop.'; exit 1")
    done = CliRunner().invoke(app, out)
    assert (done.exit_code, "does not compile: Emergency stop.; see" in done.stderr) == (1, True)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here")
def test_all_of_it_compiles_with_room_on_its_pages_to_the_same_bytes(tmp_path: Path, hostile: Source) -> None:
    write_paper([hostile, published_source()], tmp_path, "one")  # the higher pictures, and the longer captions
    page = compile_page(tmp_path)
    assert page is not None
    content = page.read_bytes()
    assert content.startswith(b"%PDF")
    compile_page(tmp_path)
    assert page.read_bytes() == content
    command = ["pdflatex", "-interaction=nonstopmode", "paper.tex"]
    log = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace").stdout
    assert "Overfull" not in log and "Float too large" not in log and "multiply defined" not in log
