"""Tables for papers: the numbers, the three forms, and what is refused."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st
from run_folders import collect, evaluation, fid_of, gmacs_of, write_lines, write_run
from test_published_scores import PAPERS_EVALUATION, run
from typer.testing import CliRunner

from analysis.commands import table as table_command
from analysis.paper.table_formats import FORMATS, Column, Table, csv, fixed, latex, markdown, significant
from analysis.paper.tables import correlations, frechet_name, published, summary
from analysis.results.tables import ResultsError, Tables, load

DIGITS = Path(__file__).parents[2] / "results" / "digits"


def collected(tmp_path: Path, labels: list[str], seeds: tuple[int, ...] = (0,)) -> Tables:
    for seed in seeds:
        for label in labels:
            write_run(tmp_path / "runs", label, seed)
    return collect(tmp_path / "runs", tmp_path / "results")


def one_cell(value: Any, number: Any = None) -> Table:
    return Table("t", "A caption", "Conventions.", (Column("x", "x", number),), pd.DataFrame({"x": [value]}))


# The numbers


def test_one_row_per_model_with_mean_and_range_over_the_seeds(tmp_path: Path) -> None:
    table = summary(collected(tmp_path, ["XL/1", "S/2", "S/4"], (0, 1, 2)))
    assert table.data["label"].tolist() == ["S/4", "S/2", "XL/1"]
    for row in table.data.to_dict("records"):
        scores = [fid_of(row["label"], 2000, seed) for seed in range(3)]
        assert row["fid"] == pytest.approx(np.mean(scores), rel=1e-12)
        assert (row["fid_min"], row["fid_max"], row["num_seeds"]) == (min(scores), max(scores), 3)
        assert (row["gmacs"], row["step"], row["precision"]) == (gmacs_of(row["label"]), 2000, pytest.approx(0.7))
        assert row["loss"] == pytest.approx(1.1 / 2000**0.25)
    # What no run computed has no column.
    assert not {"sfid", "fid_infinity"} & set(table.data.columns)


def test_a_seed_that_is_behind_does_not_enter_the_mean(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "S/4", 0)
    write_run(tmp_path / "runs", "S/4", 1, steps=(500, 1000))
    (row,) = summary(collect(tmp_path / "runs", tmp_path / "results")).data.to_dict("records")
    assert (row["step"], row["num_seeds"], row["fid"]) == (2000, 1, fid_of("S/4", 2000, 0))


def test_the_loss_is_of_the_scored_step_and_not_of_a_later_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", "S/4")
    write_lines(folder / "evals.jsonl", [evaluation("S/4", 1050)])
    (row,) = summary(collect(tmp_path / "runs", tmp_path / "results")).data.to_dict("records")
    assert row["loss"] == 1.1 / 1000**0.25


def test_a_score_that_one_seed_lacks_has_no_mean(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "S/4", 0)
    folder = write_run(tmp_path / "runs", "S/4", 1)
    write_lines(folder / "evals.jsonl", [evaluation("S/4", 2000, 1, kid=None)])
    table = summary(collect(tmp_path / "runs", tmp_path / "results"))
    (cells,) = table.rows()
    shown = {column.name: cell.text for column, cell in zip(table.columns, cells, strict=True)}
    assert shown["kid"] == ""
    assert shown["recall"] == "0.600"


def test_the_summary_of_digits_has_the_numbers_of_its_readme() -> None:
    data = summary(load(DIGITS)).data.set_index("label")
    percents = {"S/4": 41.1, "S/1": 21.4, "B/2": 21.7, "L/1": 10.9, "XL/4": 22.2, "XL/1": 9.7}
    assert data.loc[list(percents), "fid_percent"].round(1).to_dict() == percents


def test_published_and_measured_with_differences_over_the_seeds(tmp_path: Path) -> None:
    write_seeds(tmp_path / "runs", [18.1, 19.1])
    (row,) = published(collect(tmp_path / "runs", tmp_path / "results")).data.to_dict("records")
    assert (row["published"], row["measured"], row["num_seeds"]) == (19.47, pytest.approx(18.6), 2)
    assert row["difference"] == pytest.approx(-0.87)
    assert (row["difference_min"], row["difference_max"]) == (pytest.approx(-1.37), pytest.approx(-0.37))
    assert row["relative_percent"] == pytest.approx(100 * -0.87 / 19.47)
    assert row["source"] == "Peebles & Xie 2022 (arXiv:2212.09748) Table 4"


def write_seeds(runs: Path, fids: list[float]) -> None:
    """Runs of XL/2 as in the paper, one per seed, scored at 400K steps."""
    for seed, fid in enumerate(fids):
        folder = run(runs, "XL/2", [{"step": 400_000, "fid": fid}])
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["recipe"]["seed"], config["id"] = seed, f"xl2{seed}"
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        folder.rename(runs / f"seed{seed}")


def test_correlations_of_digits_are_those_of_its_readme() -> None:
    data = correlations(load(DIGITS)).data
    assert data.loc[data["step"] == 600, "r"].round(3).tolist() == [-0.950, -0.951, -0.977]


@pytest.mark.parametrize(
    ("extractor", "name"), [("inception-v3-compat-6726825d", "FID"), ("digits-cnn", "Fréchet distance")]
)
def test_only_a_distance_of_inceptions_features_is_called_fid(extractor: str, name: str) -> None:
    assert frechet_name(pd.DataFrame([evaluation("S/4", 500, extractor=extractor)])) == name


# How numbers are printed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.000104064, "0.0001041"),
        (118.638, "118.6"),
        (99.996, "100.0"),
        (15508.4, "15,508"),
        (0.0, "0"),
        (-2.5, "-2.500"),
    ],
)
def test_significant_digits(value: float, text: str) -> None:
    assert significant(4)(value) == text


@given(st.floats(min_value=1e-12, max_value=1e12))
def test_significant_digits_are_close_and_read_back(value: float) -> None:
    assert float(significant(4)(value).replace(",", "")) == pytest.approx(value, rel=0.5001e-3)


# The three forms


def test_csv_reads_back_exactly(tmp_path: Path) -> None:
    table = summary(collected(tmp_path, ["S/4", "B/2"], (0, 1)))
    back = pd.read_csv(io.StringIO(csv(table)))
    assert back.columns.tolist() == table.data.columns.tolist()
    for name in back.columns:
        assert back[name].tolist() == table.data[name].tolist()


def test_markdown_has_as_many_cells_in_every_row_and_escapes_bars(tmp_path: Path) -> None:
    text = markdown(summary(collected(tmp_path, ["S/4", "B/2"], (0, 1))))
    assert text.startswith("**Models at their last scored step**\n\n| Model | Parameters | GMACs |")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count(" | ") for line in lines} == {len(lines[0].split(" | ")) - 1}
    assert len(lines) == 4
    low, high = sorted(fid_of("S/4", 2000, seed) for seed in (0, 1))
    assert f"| {(low + high) / 2:.2f} ({low:.2f} to {high:.2f}) |" in lines[2]
    assert r"a\|b" in markdown(one_cell("a|b"))


def latex_rows(text: str) -> list[str]:
    body = text.partition(r"\toprule")[2].partition(r"\bottomrule")[0]
    return [line for line in body.splitlines() if line.endswith(r"\\")]


@pytest.mark.parametrize("make", [summary, correlations, published])
def test_latex_has_as_many_cells_as_columns_in_every_row(tmp_path: Path, make: Any) -> None:
    if make is published:
        write_seeds(tmp_path / "runs", [18.1, 19.1])
        text = latex(make(collect(tmp_path / "runs", tmp_path / "results")))
        assert r"Peebles \& Xie 2022" in text
        assert "$-$0.87" in text
        assert r"\scriptsize $-$1.37 to $-$0.37" in text
    else:
        text = latex(make(load(DIGITS)))
    alignment = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
    assert alignment
    rows = latex_rows(text)
    assert len(rows) > 1
    assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(alignment[1])}
    for name in ("table*", "tabular"):  # too wide for a column
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    assert "true FLOPs are twice as many" in text


def test_a_narrow_table_has_one_column_of_a_paper_and_ranges_a_dash() -> None:
    data = pd.DataFrame({"x": [0.5], "x_min": [0.25], "x_max": [1.0], "num_seeds": [3]})
    text = latex(Table("t", "A caption", "", (Column("x", "FID∞ ↓", fixed(2)),), data))
    assert r"\begin{table}" in text and r"\end{table}" in text
    assert latex_rows(text) == [r"FID$_\infty$ $\downarrow$ \\", r"0.50 \\", r"\scriptsize 0.25--1.00 \\"]


def test_latex_escapes_what_tex_reads_as_commands() -> None:
    (_, row) = latex_rows(latex(one_cell("a_b & 5% #1 {x} \\y ~^ $")))
    expected = r"a\_b \& 5\% \#1 \{x\} \textbackslash{}y \textasciitilde{}\textasciicircum{} \$ \\"
    assert row == expected


@given(st.text(alphabet="ab&%$#_{}~^\\<>|", max_size=20))
def test_nothing_in_a_cell_ends_it(text: str) -> None:
    (_, row) = latex_rows(latex(one_cell(text)))
    bare = re.sub(r"\\(text[a-z]+\{\}|[&%$#_{}])", "", row.removesuffix(r" \\"))
    assert not set(bare) & set("&%$#_{}~^\\")


def test_negative_numbers_get_minus_signs_in_latex() -> None:
    assert latex_rows(latex(one_cell(-0.5, fixed(1)))) == [r"x \\", r"$-$0.5 \\"]


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here")
def test_latex_compiles(tmp_path: Path) -> None:
    tables = load(DIGITS)
    write_seeds(tmp_path / "runs", [18.1, 19.1])
    compared = published(collect(tmp_path / "runs", tmp_path / "results"))
    body = latex(summary(tables)) + latex(correlations(tables)) + latex(compared)
    document = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}" + body + r"\end{document}"
    (tmp_path / "t.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout  # nothing beyond the margin


# What is refused


@pytest.mark.parametrize("make", [summary, correlations])
def test_mixed_evaluation_keys_are_refused(tmp_path: Path, make: Any) -> None:
    folder = write_run(tmp_path / "runs", "S/4")
    write_lines(folder / "evals.jsonl", [evaluation("S/4", 500), evaluation("S/4", 500, sampling_steps=50)])
    with pytest.raises(ResultsError, match="differ in sampling_steps: 250, 50 are not comparable"):
        make(collect(tmp_path / "runs", tmp_path / "results"))


def test_two_runs_of_one_seed_are_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", "S/4")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    folder.rename(tmp_path / "runs" / "first")
    folder = write_run(tmp_path / "runs", "S/4")
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"id": "another"}))
    with pytest.raises(ResultsError, match="S/4: several runs of seed 0; keep one run of each model and seed"):
        summary(collect(tmp_path / "runs", tmp_path / "results"))


def test_seeds_that_were_trained_differently_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "S/4", 0)
    folder = write_run(tmp_path / "runs", "S/4", 1)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["recipe"]["train"]["batch_size"] = 128
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ResultsError, match=r"S/4: its runs differ in batch_size \(64, 128\); keep one value"):
        summary(collect(tmp_path / "runs", tmp_path / "results"))


def test_tables_without_a_score_are_refused(tmp_path: Path) -> None:
    (write_run(tmp_path / "runs", "S/4") / "evals.jsonl").unlink()
    tables = collect(tmp_path / "runs", tmp_path / "results")
    with pytest.raises(ResultsError, match="no score to summarise: evals is empty"):
        summary(tables)
    with pytest.raises(ResultsError, match="no correlation: no seed and step has three models"):
        correlations(tables)
    with pytest.raises(ResultsError, match="no score can stand next to a published one: none is of a published model"):
        published(tables)


def test_why_nothing_can_stand_beside_published_scores(tmp_path: Path) -> None:
    run(tmp_path / "runs", "XL/2", [{"step": 400_000, "sampling_steps": 50, "clip_denoised": True}])
    write_lines(
        next((tmp_path / "runs").glob("*")) / "evals.jsonl",
        [evaluation("XL/2", 400_000, **PAPERS_EVALUATION | {"sampling_steps": 50})],
    )
    with pytest.raises(ResultsError, match=r"XL/2 at step 400000: sampling_steps is 50, published 250$"):
        published(collect(tmp_path / "runs", tmp_path / "results"))


# The command


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    made.command()(table_command.table)
    return made


@pytest.mark.parametrize("format", FORMATS)
def test_the_command_prints_or_writes_the_table(app: typer.Typer, tmp_path: Path, format: str) -> None:
    command = ["summary", "--results", str(DIGITS), "--format", format]
    expected = FORMATS[format](summary(load(DIGITS)))
    assert CliRunner().invoke(app, command).stdout == expected
    CliRunner().invoke(app, [*command, "--out", str(tmp_path / "t")])
    assert (tmp_path / "t").read_text(encoding="utf-8") == expected


def test_the_command_offers_every_table_and_every_format() -> None:
    from analysis.paper.of_papers import OF_PAPERS
    from analysis.paper.tables import TABLES

    assert list(get_args(table_command.TableName)) == [*TABLES, *OF_PAPERS]
    assert list(get_args(table_command.TableFormat)) == list(FORMATS)
