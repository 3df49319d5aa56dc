"""From sections of plain data to one HTML page: it fetches nothing, and lacks nothing without JavaScript."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.report.tables import minus
from analysis.results.visible import visible_lines


@dataclass(frozen=True)
class Section:
    """A part of the page: its id, also the macro of sections.html.j2 that shows it, its heading, and its content."""

    id: str
    heading: str
    content: Mapping[str, Any]

    def html(self) -> str:
        """The section's body alone."""
        return str(getattr(_templates().get_template("sections.html.j2").module, self.id)(self.content))


def page(title: str, headline: str, lead: str, sections: Sequence[Section]) -> str:
    """The whole page; `headline` is what the study has found, `lead` what it is."""
    template = _templates().get_template("page.html.j2")
    return template.render(title=title, headline=headline, lead=lead, sections=sections)


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("analysis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda shown: visible_lines(shown) if type(shown) is str else shown,  # not of what is HTML already
    )
    made.filters |= {"exact": _exact, "minus": minus, "powers": _powers}
    return made


def _powers(text: str) -> Markup:
    """With exponents raised: C^−0.24."""
    parts = re.split(r"\^([−-]?\w+(?:\.\d+)?)", visible_lines(text))
    raised = [Markup("<sup>{}</sup>").format(part) if index % 2 else escape(part) for index, part in enumerate(parts)]
    return Markup("").join(raised)


def _exact(value: Any) -> str:
    """A number as JavaScript reads it back; "" for none."""
    return "" if value is None else repr(value.item() if hasattr(value, "item") else value)
