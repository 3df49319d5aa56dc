"""A study for a paper: its figures as PDFs without captions, its tables, LaTeX for each, and a page of them all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from analysis.drawing.picture import Drawn
from analysis.drawing.style import Width
from analysis.drawing.write import latex_figure, rendered
from analysis.errors import ResultsError
from analysis.figures import CATALOGUE, available
from analysis.figures.sources import Source, scaling_study
from analysis.paper.of_papers import OF_PAPERS
from analysis.paper.table_formats import Table, latex
from analysis.paper.tables import TABLES
from analysis.results.files import write_whole

SECONDS = 300  # for pdflatex, which may have to make its fonts first
# Two columns, as wide as the figures are drawn. Without dates and names of files: the same page is the same bytes.
PAGE = r"""% By ditbench paper, which writes it anew each time.
\documentclass[twocolumn]{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage{textcomp}
\usepackage{booktabs}
\usepackage{graphicx}
\usepackage[textwidth=6.75in,textheight=9.25in,columnsep=0.25in]{geometry}
\ifdefined\pdfinfoomitdate
  \pdfinfoomitdate=1 \pdftrailerid{} \pdfsuppressptexinfo=-1
\fi
\begin{document}
%FIGURES%
\clearpage
%TABLES%
\end{document}
"""
MARK = PAGE.partition("\n")[0].encode()


def write_paper(sources: Sequence[Source], out: Path, width: Width = "two") -> Drawn:
    """Write into `out` each figure that `sources` have data for as .pdf and .tex, each table as .tex, and paper.tex.

    Raises:
        NothingToDraw: there is data for no figure.
        ResultsError: scores that are not finite or not comparable, or a paper.tex of another hand in `out`.
    """
    page = out / "paper.tex"
    if page.exists() and not page.read_bytes().startswith(MARK):
        raise ResultsError(f"{page} is not of `ditbench paper` and stays; accepted: another folder as --out")
    pictures, left_out = available(sources, width)
    files: list[Path] = []
    for name, picture in pictures.items():
        pdf, tex = (out / f"{file_name(name)}.{kind}" for kind in ("pdf", "tex"))
        files += [
            write_whole(pdf, rendered(picture, "pdf")),
            write_whole(tex, latex_figure(picture, pdf.name).encode()),
        ]
    tables, without = _tables(sources)
    files += [write_whole(out / f"table-{table.name}.tex", latex(table).encode()) for table in tables]
    parts = {
        "%FIGURES%": [file_name(name) for name in pictures],
        "%TABLES%": [f"table-{table.name}" for table in tables],
    }
    text = PAGE
    for place, names in parts.items():
        text = text.replace(place, "\n".join(rf"\input{{{name}}}" for name in names))
    return Drawn([*files, write_whole(page, text.encode())], left_out + without)


def file_name(figure: str) -> str:
    """gflops-vs-fid -> fig8-gflops-vs-fid, by the paper's number; the name alone where it has none."""
    number = re.sub(r"\W", "", CATALOGUE[figure].number.lower())
    return f"{number}-{figure}" if number else figure


def compile_page(folder: Path) -> Path | None:
    """Make paper.pdf of a folder's paper.tex; None where pdflatex is not installed.

    Raises:
        ResultsError: pdflatex's first error; paper.log has them all.
    """
    pdflatex = shutil.which("pdflatex")
    if pdflatex is None:
        return None
    page, pdf, log = (folder / f"paper.{kind}" for kind in ("tex", "pdf", "log"))
    pdf.unlink(missing_ok=True)
    with TemporaryDirectory() as aside:
        command = [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "-file-line-error", "-no-shell-escape"]
        for _ in range(2):  # the second knows the places of the labels
            try:
                done = subprocess.run(
                    [*command, f"-output-directory={aside}", page.name],
                    cwd=folder,
                    env=os.environ | {"max_print_line": "1000"},  # an error is one line
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise ResultsError(f"{page} does not compile: pdflatex took more than {SECONDS} s") from None
            if done.returncode:
                write_whole(log, done.stdout)
                raise ResultsError(f"{page} does not compile: {_first_error(done.stdout)}; see {log}")
        log.unlink(missing_ok=True)
        return write_whole(pdf, (Path(aside) / "paper.pdf").read_bytes())


def _first_error(output: bytes) -> str:
    found = re.search(r"^(?:! *|\S[^\n]*:\d+: )[^\n]+", output.decode(errors="replace"), re.MULTILINE)
    return found[0].removeprefix("! ") if found else "pdflatex says no reason"


def _tables(sources: Sequence[Source]) -> tuple[list[Table], list[str]]:
    """The tables of all sources, and in lines why there are no others. A source is named where there are several."""
    made: list[Table] = []
    without: dict[str, list[str]] = {}
    for source, called in zip(sources, _plain_names(sources), strict=True):
        for name, make in TABLES.items():
            if source.published and name == "published":  # beside itself
                continue
            try:
                table = make(scaling_study(source))
            except ResultsError as error:
                without.setdefault(f"{source.name}: {error}", []).append(name)
                continue
            if len(sources) > 1:
                caption = f"{table.caption} ({source.name})"
                table = replace(table, name=f"{name}-{called}", caption=caption)
            made.append(table)
        if source.published:
            made += [make() for make in OF_PAPERS.values()]
    return made, [f"table {', '.join(names)}: not made: {reason}" for reason, names in without.items()]


def _plain_names(sources: Sequence[Source]) -> list[str]:
    """What files and labels of LaTeX can be called, each otherwise: My results (2) -> my-results-2."""
    names = [re.sub("[^a-z0-9]+", "-", source.name.lower()).strip("-") or "results" for source in sources]
    if len(set(names)) == len(names):
        return names
    return [f"{name}-{number}" for number, name in enumerate(names, 1)]
