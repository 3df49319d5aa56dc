"""A name is data, whatever is in it, in pictures, Markdown, LaTeX and HTML: it neither ends anything nor changes."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawn_figures import Sources, seen
from hostile_names import NAMES, names
from hypothesis import example, given, settings
from markdown_it import MarkdownIt
from matplotlib.legend import Legend
from matplotlib.text import Text
from report_html import by_id, parsed, section
from run_folders import collect, write_run

from analysis import figures
from analysis.figures.sources import measured
from analysis.paper.latex import SIGNS
from analysis.paper.table_formats import Column, Table, latex, markdown
from analysis.report.laws import _symbols
from analysis.report.write import report
from analysis.results.files import npz_bytes
from analysis.results.tables import Tables, load
from analysis.results.visible import HIDDEN, visible, visible_names

# What the escapes of LaTeX are, read backwards.
UNESCAPED = {escaped: sign for sign, escaped in SIGNS.items() if sign.isascii()}


def examples(test: Any) -> Any:
    for name in NAMES:
        test = example(name)(test)
    return settings(deadline=None)(given(names)(test))


def table_of(*cells: str) -> Table:
    data = pd.DataFrame({"a": cells, "b": "x"}, dtype="object")  # pandas' text cannot hold half a character
    return Table("t", f"About {cells[0]} here", f"As {cells[0]}", (Column("a", "A"), Column("b", "B")), data)


# Characters that do something where they are shown


@examples
def test_a_visible_name_is_one_line_that_a_terminal_only_shows(name: str) -> None:
    shown = visible(name)
    assert not HIDDEN.search(shown)
    assert shown.splitlines() == [shown]
    assert shown.encode() == visible(shown).encode()


@given(names.filter(str.isprintable))
def test_what_is_printable_stays(name: str) -> None:
    assert visible(name) == name


def test_hidden_characters_are_named_as_python_does() -> None:
    assert visible("a\n\x1b[0m\u202e\ud800\x00é日😀\\n") == r"a\n\x1b[0m\u202e\ud800\x00é日😀\n"


# Markdown and LaTeX


@examples
def test_markdown_cells_read_as_their_names(name: str) -> None:
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(markdown(table_of(name, "second")))
    inline = [token for token in tokens if token.type == "inline"]
    assert [token.content == "x" for token in inline].count(True) == 2, "a cell more or less"
    caption, *cells, conventions = [text_of(token.children or []) for token in inline]
    assert cells[:2] == ["A", "B"]
    assert cells[2:] == [visible(name).strip(), "x", "second", "x"]
    assert caption == f"About {visible(name)} here"
    assert conventions.strip() == f"As {visible(name)}".strip()


def text_of(tokens: list[Any]) -> str:
    """The text of inline tokens, which may be bold as a caption is, but nothing else."""
    assert {token.type for token in tokens} <= {"text", "text_special", "strong_open", "strong_close"}
    return "".join(token.content for token in tokens)


@examples
def test_latex_cells_read_as_their_names(name: str) -> None:
    text = latex(table_of("first", name))
    body = text.partition("\\midrule\n")[2].partition("\n\\bottomrule")[0]
    first, row = body.split("\n")
    assert first == r"first & x \\"
    cell, rest = row.rsplit(" & ", 1)
    assert rest == r"x \\"
    assert re.match(r"\s*[\[*]", cell) is None, "an argument of the line before"
    assert cell.isascii()
    bare = re.sub(r"\\[{}]", "", cell)
    assert bare.count("{") == bare.count("}")
    if not visible(name).isascii():
        return
    assert "--" not in cell and "''" not in cell, "one sign of two"
    parts: list[str] = re.findall(r"\\[a-z]+\d*\{\}|\\[&%$#_{}]|\{\}|.", cell)
    assert not set(parts) & set('\\&%$#_{}~^<>|`"')
    assert "".join(UNESCAPED.get(part, part) for part in parts if part != "{}") == visible(name)


# HTML


@examples
def test_a_page_has_names_as_its_text(name: str) -> None:
    found = section("failures", {"failed": [name, "second"], "missing": []})
    lists = found.all("ul")
    assert [item.text for item in lists[0].all("li")] == ["\n".join(map(visible, name.split("\n"))), "second"]
    assert [child.tag for child in lists[0].all()] == ["li", "li"]


def test_a_hyphen_in_a_name_is_no_minus() -> None:
    assert _symbols("-x: -0.5 (C^-alpha) of S -2", ["-x", "S -2", ""]) == "-x: −0.5 (C^−α) of S -2"
    assert _symbols("alpha of alpha -1", ["alpha -1"]) == "α of alpha -1"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("study")
    for label in ("S/4", "B/2", "XL/1"):
        write_run(folder / "runs", label)
    return collect(folder / "runs", folder / "results")


def renamed(tables: Tables, texts: dict[str, str], column: str = "label") -> Tables:
    """`tables` with other texts in `column`."""

    def changed(table: pd.DataFrame) -> pd.DataFrame:
        if column not in table.columns:
            return table
        return table.assign(**{column: table[column].map(lambda text: texts.get(text, text)).astype("str")})

    return replace(
        tables,
        **{name: changed(getattr(tables, name)) for name in ("runs", "train", "evals", "other_evals")},
    )


@pytest.mark.slow
def test_a_whole_report_of_hostile_names(study: Tables) -> None:
    names = ["<script>alert(1)</script> \"'&amp;", "\x1b[2J$x_{1}$\n</pre>", "-1 step 2, <b>"]
    labelled = renamed(study, dict(zip(study.runs["label"], names, strict=True)))
    html = report(renamed(labelled, dict.fromkeys(study.runs["sweep"], names[0]), "sweep"))
    assert "\x1b" not in html
    page = parsed(html)
    assert len(page.all("script")) == 1
    assert {child.text for child in page.all("b")} == set(map(visible, names))
    assert page.all("title")[0].text.startswith(names[0])
    for table in ("table-summary", "table-runs"):
        (found,) = [element for element in page.all("table") if element.attributes["id"] == table]
        assert {*map(visible, names)} <= {cell.text for cell in found.all("th")}
    said = "".join(title.text for title in by_id(page, "chart-fid-compute").all("title"))
    alts = "".join(image.attributes["alt"] for image in page.all("img"))
    assert [name for name in names if visible(name) not in said or visible(name) not in alts] == []


# Pictures


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("sources"))


def texts_of(figure: Any) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.slow
@pytest.mark.parametrize("figure", sorted(figures.CATALOGUE))
def test_every_figure_shows_names_as_they_are(tmp_path: Path, sources: Sources, figure: str) -> None:
    source = sources[figure]
    models = source.tables.runs["label"].drop_duplicates().tolist()
    hostile = dict(zip(models, NAMES, strict=False))
    data = "$\\data$ _<b>\x1b[1m"
    tables = renamed(renamed(source.tables, hostile), dict.fromkeys(source.tables.runs["data"], data), "data")
    blocks = {block: block.partition(",")[0] for block in tables.runs["block"]}  # `measured` adds the settings again
    tables = renamed(tables, blocks, "block")
    with seen() as drawn, warnings.catch_warnings():
        warnings.simplefilter("error")
        files = figures.draw(figure, [measured(tables, "_folder $\\x$\n")], tmp_path).files
    assert [path.stat().st_size > 0 for path in files] == [True] * len(files)
    (caption,) = (path.read_text() for path in files if path.suffix == ".txt")
    text = texts_of(drawn[0]) + caption
    assert not HIDDEN.search(text.replace("\n", ""))
    assert visible(data) in text or visible("_folder $\\x$\n") in text


@pytest.mark.slow
def test_names_of_points_and_of_legends_are_texts_of_the_picture(tmp_path: Path, sources: Sources) -> None:
    names = [name for name in NAMES if len(name) < 100]
    source = sources["gflops-vs-fid"]
    models = source.tables.runs["label"].drop_duplicates().tolist()
    shown = set()
    for start in range(0, len(names), len(models)):
        hostile = dict(zip(models, names[start:], strict=False))
        with seen() as drawn:
            figures.draw("gflops-vs-fid", [measured(renamed(source.tables, hostile))], tmp_path)
        shown |= {text.get_text() for text in drawn[0].findobj(Text)}
    assert {visible(name) for name in names} <= shown


def test_a_name_that_begins_with_an_underscore_stays_in_the_legend(tmp_path: Path, sources: Sources) -> None:
    source = sources["blocks"]
    tables = renamed(source.tables, {"adaln": "_mine $\\x$"}, "block")
    labels = {
        label: label.replace("adaln", "_mine $\\x$") for label in tables.runs["label"] if label.endswith(" adaln")
    }
    tables = renamed(tables, labels, "label")
    with seen() as drawn:
        figures.draw("blocks", [measured(tables)], tmp_path)
    legend = [text.get_text() for legend in drawn[0].findobj(Legend) for text in legend.get_texts()]
    assert [text.rpartition(" (")[0] for text in legend] == ["in-context", "adaln-zero", "_mine $\\x$"]


# Tables


def test_names_that_are_arguments_or_paths_are_members_of_an_archive(tmp_path: Path) -> None:
    arrays = {name: np.full(3, index) for index, name in enumerate(["file", "allow_pickle", "../x", "a/b", "é", ""])}
    (tmp_path / "arrays.npz").write_bytes(npz_bytes(arrays))
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as archive:
        assert {name: archive[name].tolist() for name in archive.files} == {n: a.tolist() for n, a in arrays.items()}


def test_only_texts_are_changed_to_be_shown(study: Tables) -> None:
    plain = visible_names(study)
    for name in ("runs", "train", "evals", "other_evals"):
        pd.testing.assert_frame_equal(getattr(plain, name), getattr(study, name))
    hostile = visible_names(renamed(study, {"S/4": "a\x1b\n"}))
    assert set(hostile.runs["label"]) == {r"a\x1b\n", "B/2", "XL/1"}


def test_collected_names_come_back_as_they_were(tmp_path: Path, study: Tables) -> None:
    folder = write_run(tmp_path / "runs", "S/4")
    config = folder / "config.yaml"
    name = "\x1b[31m$x$\n|"
    config.write_text(config.read_text().replace("label: S/4", 'label: "\\e[31m$x$\\n|"'))
    assert set(collect(tmp_path / "runs", tmp_path / "results").runs["label"]) == {name}
    assert set(load(tmp_path / "results").evals["label"]) == {name}
