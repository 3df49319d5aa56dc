"""From sections of plain data to one HTML page: it fetches nothing, and lacks nothing without JavaScript."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

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


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The whole page; `lead` is the paragraph under the title."""
    return _templates().get_template("page.html.j2").render(title=title, lead=lead, sections=sections)


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
    made.filters |= {"exact": _exact, "minus": minus}
    return made


def minus(text: str) -> str:
    """Hyphens as minus signs."""
    return text.replace("-", "−")


def _exact(value: Any) -> str:
    """A number as JavaScript reads it back; "" for none."""
    return "" if value is None else repr(value.item() if hasattr(value, "item") else value)
