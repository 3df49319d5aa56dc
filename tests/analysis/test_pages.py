"""What the README and the pages of docs/ and results/ say was measured is what files under results/ hold.

An invisible marker stands behind a printed number, `<!-- = EXPRESSION -->`, or behind a claim, `<!-- holds: EXPRESSION
-->`; an expression is Python over the names of tests/support/measured.py. The values of `=` are the last numbers before
it in its paragraph, or, where it stands below a table, all of the table's, to the digits that are printed. A value may
be a word too, such as a model's label.
"""

from __future__ import annotations

import json
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import measured
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.results.tables import correlations, load
from ditbench import app
from sweeps.expand import load_sweep

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("results/*/README.md"))]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
MARKER = re.compile(r"<!-- (=|holds:) (.*?)\s*-->", re.S)
# Not the 4 of S/4, the 8 of 8x8 or the 400 of 400K.
NUMBER = r"(?<![\w.])(?<![^\d]/)[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?(?!\w)"
# Decimals that are not measured: versions and licence, settings, budgets, and what others report of their own samples.
SETTINGS = {"3.11", "2.0", "22.05", "0.02", "0.15", "1.5", "1.50", "0.9999", "2.5", "1.2e-8"}
SETTINGS |= {"0.1", "2.27", "3.31", "3.54", "3.60"}


def flat(value: Any) -> list[Any]:
    if isinstance(value, pd.DataFrame):
        value = value.itertuples(index=False)
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return [value]
    return [item for part in value for item in flat(part)]


def agrees(printed: str, value: Any) -> bool:
    if isinstance(value, str):
        return printed == value
    if "e" in printed:
        return float(printed) == value
    decimals = len(printed.partition(".")[2])
    return f"{value:.{decimals}f}" == printed.replace(",", "").lstrip("+")


def silenced(text: str) -> str:
    """The page with code, comments and addresses blanked."""
    return re.sub(
        r"```.*?```|<!--.*?-->|`[^`]*`|\]\([^)]*\)|arXiv:\S+", lambda found: " " * len(found[0]), text, flags=re.S
    )


def tokens(text: str, values: list[Any]) -> list[re.Match[str]]:
    """Where `values` are printed at the end of `text`, the page up to a marker."""
    block = text.rpartition("\n\n")[2]
    is_table = block.startswith("|") and block.endswith("\n")
    start = len(text) - len(block.partition("--- |\n")[2] if is_table else block)
    words = sorted({re.escape(value) for value in values if isinstance(value, str)}, key=len, reverse=True)
    token = re.compile("|".join([*(rf"(?<!\w){word}(?!\w)" for word in words), NUMBER]))
    found = list(token.finditer(silenced(text), start))
    return found if is_table else found[-len(values) :]


def differences(text: str, values: list[Any]) -> list[tuple[Any, Any]]:
    """(printed, value) where they do not agree."""
    printed = [found[0] for found in tokens(text, values)]
    if len(printed) != len(values):
        return [(printed, values)]
    return [pair for pair in zip(printed, values, strict=True) if not agrees(*pair)]


@cache
def evaluated(expression: str) -> Any:
    return eval(f"({expression})", {**vars(measured), "np": np})  # the repository's own pages


def slow_if(*expressions: str) -> list[Any]:
    """Comparisons with intervals, one after the other, take a second and more."""
    return [pytest.mark.slow] if re.search(r"\b(label_pair|higher|each_apart)\(", " ".join(expressions)) else []


MARKERS = [
    pytest.param(
        text[: found.start()], *found.groups(), marks=slow_if(found[2]),
        id=f"{name}:{text.count(chr(10), 0, found.start()) + 1}",
    )
    for name, text in TEXTS.items()
    for found in MARKER.finditer(text)
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "expression"), MARKERS)
def test_pages_say_what_was_measured(text: str, kind: str, expression: str) -> None:
    if kind == "=":
        assert differences(text, flat(evaluated(expression))) == []
    else:
        assert evaluated(expression)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=slow_if(*(found[2] for found in MARKER.finditer(text) if found[1] == "=")))
        for name, text in TEXTS.items()
    ],
)
def test_a_decimal_has_a_marker_or_is_a_setting(name: str) -> None:
    text = TEXTS[name]
    markers = [found for found in MARKER.finditer(text) if found[1] == "="]
    held = {token.start() for m in markers for token in tokens(text[: m.start()], flat(evaluated(m[2])))}
    loose = [found for found in re.finditer(NUMBER, silenced(text)) if "." in found[0] and found.start() not in held]
    assert {found[0] for found in loose} - SETTINGS == set(), "add a marker, see this file's docstring"


TABLE = "| model | fid |\n| --- | --- |\n| S/4 | 41.1 |\n| B/4 | 1,228.0, missed |\n"


def test_a_wrong_digit_row_or_word_is_a_difference() -> None:
    right = ["S/4", 41.14, "B/4", 1227.96, "missed"]
    assert differences(TABLE, right) == []
    assert differences(TABLE, ["S/4", 41.16, "B/4", 1227.96, "missed"]) == [("41.1", 41.16)]
    for wrong in (right[2:], [*right, 5], ["S/2", *right[1:]]):
        assert differences(TABLE, wrong) != []
    assert differences("Of 12, r is -0.957 (+3.9 %)", [-0.9567, 3.88]) == []
    assert differences("r is 0.957", [-0.9567]) == [("0.957", -0.9567)]
    assert differences("Not 7.\n\nIt is 8", [7, 8]) != []


def test_committed_tables_and_figures_are_those_of_the_committed_scores() -> None:
    columns = ["seed", "step", "r"]
    for path in sorted(measured.RESULTS.glob("*/correlations.csv")):
        table, expected = (frame[columns] for frame in (pd.read_csv(path), correlations(load(path.parent).evals)))
        pd.testing.assert_frame_equal(pd.DataFrame(table), pd.DataFrame(expected), check_dtype=False)
    drawn = measured.csv("digits/gflops_vs_fid.csv").query("panel == 'measured'").set_index("label").fid
    assert drawn.to_dict() == pytest.approx(measured.scores("digits").mean(axis=1).to_dict())


@pytest.mark.slow
def test_the_committed_counts_are_what_the_command_prints() -> None:
    printed = CliRunner().invoke(app, ["flops", "--all", "--format", "csv"])
    assert printed.output == (ROOT / "results" / "flops.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/plans/*.json")), ids=lambda path: path.stem)
def test_the_committed_plans_are_what_the_command_prints(path: Path) -> None:
    sweep = str(ROOT / "sweeps" / "studies" / f"{path.stem}.yaml")
    printed = CliRunner().invoke(app, ["sweep", "plan", sweep, "--cluster", "slurm-example", "--json"])
    assert json.loads(printed.output) == json.loads(path.read_text(encoding="utf-8"))


def test_commands_and_their_options_exist() -> None:
    text = "\n".join(TEXTS.values()).replace("\\\n", " ")
    lines = re.findall(r"^ditbench .*$", text, re.M) + re.findall(r"`(ditbench [^`]*)`", text)
    lines = [command.strip() for line in lines for command in line.split("&&")]
    assert len(lines) > 60
    helped = cache(lambda *command: CliRunner().invoke(app, [*command, "--help"]))
    for line in lines:
        words = shlex.split(line.replace("[--quick]", "--quick"), comments=True)[1:]
        group = 2 if words[0] in ("sweep", "perf") and len(words) > 1 else 1
        result = helped(*words[:group])
        assert result.exit_code == 0, line
        assert [word for word in words if word.startswith("--") and word not in result.output] == [], line


def test_the_example_of_a_sweep_expands(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(extends: .*?)```", TEXTS["docs/runs.md"], re.S)
    (tmp_path / "digits.yaml").write_text((ROOT / "sweeps" / "studies" / "digits.yaml").read_text())
    (tmp_path / "mine.yaml").write_text(example)
    labels = [recipe.label for recipe in load_sweep(tmp_path / "mine.yaml").recipes]
    assert labels == [f"XL/2 {block}" for block in ("adaln-zero", "adaln", "in-context") for _ in range(2)]


@pytest.mark.parametrize("name", TEXTS)
def test_links_and_named_files_exist(name: str) -> None:
    linked = re.findall(r"\]\((?!http|#)([^)#]+)", TEXTS[name])
    named = re.findall(r"`((?:models|bench|sweeps|analysis|tests)/[\w/.-]+)`", TEXTS[name])
    missing = [p for p in linked if not ((ROOT / name).parent / p).exists()]
    assert missing + [path for path in named if not (ROOT / path).exists()] == []
