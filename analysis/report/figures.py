"""A report's pictures: the study's own charts, and those figures of the catalogue that show something else."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field

import pandas as pd
from markupsafe import Markup

from analysis.drawing import style
from analysis.drawing.picture import NothingToDraw, Picture
from analysis.errors import ResultsError
from analysis.figures import CATALOGUE, picture
from analysis.laws.report import FitReport
from analysis.paper.table_formats import Table
from analysis.report import charts
from analysis.report.chart import Chart
from analysis.report.study import Study
from analysis.report.tables import plain_table

# What the page's charts, samples and tables show of the catalogue.
SHOWN = {
    *("bubbles", "gflops-vs-fid", "fitted-law", "training-compute", "fid-vs-steps"),
    *("sample-grid", "metrics", "loss", "residuals", "seeds"),
}
# Colours of the figures that a dark page could not show -> the page's own.
INKS = {"#000000": "currentColor", "#ffffff": "var(--page)", "#dddddd": "var(--line)"}
INKS |= dict.fromkeys(("#333333", "#555555", "#666666", "#777777", "#999999", "#bbbbbb"), "var(--quiet)")


@dataclass(frozen=True)
class Figure:
    """A figure of the catalogue as SVG; `caption`: its conditions; `numbers`: what is plotted, if that is a table."""

    name: str
    title: str
    caption: str
    svg: Markup
    numbers: Table | None


@dataclass(frozen=True)
class Pictures:
    """first: what answers the question; of_laws: beside the laws; more: further down; drawn: of the catalogue."""

    first: list[Chart] = field(default_factory=list)
    of_laws: list[Chart] = field(default_factory=list)
    more: list[Chart] = field(default_factory=list)
    drawn: list[Figure] = field(default_factory=list)


def pictures(study: Study, law: FitReport | None) -> tuple[Pictures, list[str]]:
    """All that the study has data for, and a line for what could not be drawn."""
    metric, found = study.metric, Pictures()
    losses = charts.loss(study)
    found.more.extend([losses] if losses else [])
    if metric is None:
        return found, ["No picture of scores: there is none yet."]
    undrawn = []
    if study.mixed:
        undrawn.append(f"No chart of scores: {study.mixed}.")
    else:
        found.first.extend([charts.compute(study, metric, law), charts.training(study, metric)])
        of_laws = [charts.residuals(study, metric, law) if law else None, charts.seeds(study, metric)]
        found.of_laws.extend(chart for chart in of_laws if chart)
        steps = charts.steps(study, metric)
        found.more[:0] = [steps] if steps else []
        found.more.extend(charts.metrics(study))
    missing, refused = [], {}
    for name in CATALOGUE:
        if name in SHOWN:
            continue
        try:
            found.drawn.append(_figure(name, picture(name, [study.source])))
        except NothingToDraw:
            missing.append(f"{CATALOGUE[name].shows} (needs {CATALOGUE[name].needs})")
        except ResultsError as error:
            reason = str(error).removeprefix(f"{study.source.name}: ")
            refused.setdefault(reason, []).append(CATALOGUE[name].shows)
    undrawn += [f"No picture of {'; '.join(shown)}: {reason}." for reason, shown in refused.items()]
    if missing:
        undrawn.append(f"Not drawn, for want of data: {'; '.join(missing)}.")
    return found, undrawn


def _figure(name: str, drawn: Picture) -> Figure:
    numbers = None
    if isinstance(drawn.data, pd.DataFrame):
        numbers = plain_table(name, f"Numbers of the picture: {drawn.title}", "", drawn.data)
    return Figure(name, drawn.title, drawn.short, _svg(name, drawn), numbers)


def _svg(name: str, drawn: Picture) -> Markup:
    """The figure with text as text, in the page's colours, and with ids that no other figure has."""
    import matplotlib

    with style.look():
        style.lay_out(drawn.figure)
        buffer = io.StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
            metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
            drawn.figure.savefig(buffer, format="svg", metadata=metadata, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"<svg [^>]*?viewBox=\"([^\"]+)\"[^>]*>", r'<svg viewBox="\1" aria-hidden="true">', text)
    return Markup(re.sub(r"<[^>]+>", lambda tag: _tag(tag[0], name), text))


def _tag(tag: str, name: str) -> str:
    tag = re.sub(r'(\bid="|"#|url\(#)', rf"\1{name}-", tag).replace("xlink:href", "href")
    tag = re.sub(r"(\d\.\d\d)\d+", r"\1", tag)
    return re.sub("|".join(INKS), lambda found: INKS[found[0]], tag)
