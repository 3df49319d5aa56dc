"""An HTML page in one file: sections, tables, pictures. It fetches nothing, and lacks nothing without JavaScript."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from analysis.results.table_formats import Cell, Table

HERE = Path(__file__).parent
# The browser itself then refuses whatever would leave the page.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


# As in report.css.
PHONE = "screen and (max-width: 40rem)"
LONG = 40  # characters of a cell, from which on its lines are broken


@dataclass(frozen=True)
class Image:
    """A WebP file, and its size in pixels."""

    webp: bytes
    width: int
    height: int

    @property
    def url(self) -> str:
        return f"data:image/webp;base64,{base64.b64encode(self.webp).decode()}"


@dataclass(frozen=True)
class Section:
    """A part of the page: its id for links, its heading, and its HTML."""

    id: str
    heading: str
    body: str


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The whole page; `lead` is the paragraph under the title."""
    links = "".join(f'<li><a href="#{part.id}">{escape(part.heading)}</a></li>' for part in sections)
    parts = "".join(
        f'<section id="{part.id}" aria-labelledby="{part.id}-heading">\n'
        f'<h2 id="{part.id}-heading">{escape(part.heading)}</h2>\n{part.body}</section>\n'
        for part in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_asset('report.css')}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the content</a>\n'
        f"<header>\n<h1>{escape(title)}</h1>\n<p>{escape(lead)}</p>\n"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n</header>\n<main id="main">\n{parts}</main>\n'
        f"<script>\n{_asset('report.js')}</script>\n</body>\n</html>\n"
    )


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>\n"


def note(text: str) -> str:
    """Small print: conventions."""
    return f'<p class="note">{escape(text)}</p>\n'


def heading(text: str) -> str:
    """A heading inside a section."""
    return f"<h3>{escape(text)}</h3>\n"


def items(lines: Sequence[str]) -> str:
    """A list."""
    return "<ul>\n" + "".join(f"<li>{escape(line)}</li>\n" for line in lines) + "</ul>\n"


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and their values."""
    return "<dl>\n" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>\n" for name, value in pairs) + "</dl>\n"


def code(text: str, what: str) -> str:
    """Preformatted text in its own scrolling box; `what` names the box."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(what)}"><pre>{escape(text)}</pre></div>\n'
    )


def folded(what: str, body: str) -> str:
    """`body` behind a line that unfolds it."""
    return f"<details>\n<summary>{escape(what)}</summary>\n{body}</details>\n"


def table(shown: Table) -> str:
    """A table that can be sorted and filtered where JavaScript runs; its conventions below.

    A cell's data-value is its exact number, by which it is sorted.
    """
    head = "".join(
        f'<th scope="col"{_class(column.is_number)}>{escape(column.heading)}</th>' for column in shown.columns
    )
    body = "".join(
        "<tr>"
        + "".join(
            _cell(cell, is_first, column.is_number)
            for is_first, cell, column in zip([True] + [False] * len(row), row, shown.columns, strict=False)
        )
        + "</tr>\n"
        for row in shown.rows()
    )
    caption = escape(shown.caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">\n'
        f'<table id="table-{shown.name}" class="sortable">\n<caption>{caption}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n{note(shown.conventions)}"
    )


def picture(id: str, wide: Image, narrow: Image, alt: str, title: str, caption: str, below: str = "") -> str:
    """A picture that a check box shows in full size, with its caption and `below`, some HTML.

    On screens of a phone's width the browser shows `narrow` instead of `wide`; `alt` says what both show.
    """
    return (
        f'<figure id="figure-{id}">\n'
        f'<input type="checkbox" class="zoom" id="zoom-{id}"><label for="zoom-{id}">Full size</label>\n'
        f'<div class="picture" tabindex="0" role="region" aria-label="{escape(title)}"><picture>'
        f'<source media="{PHONE}" srcset="{narrow.url}" width="{narrow.width}" height="{narrow.height}">'
        f'<img src="{wide.url}" width="{wide.width}" height="{wide.height}" alt="{escape(alt)}"></picture></div>\n'
        f"<figcaption>{escape(caption)}</figcaption>\n{below}</figure>\n"
    )


def _cell(cell: Cell, is_header: bool, is_number: bool) -> str:
    text = escape(cell.text.replace("-", "−") if is_number else cell.text)
    if cell.range:
        text += f' <span class="range">{escape(cell.range.replace("-", "−"))}</span>'
    value = f' data-value="{_exact(cell.value)}"' if is_number else ""
    if is_header:
        return f'<th scope="row"{_class(is_number)}{value}>{text}</th>'
    return f"<td{_class(is_number, len(cell.text) > LONG)}{value}>{text}</td>"


def _class(is_number: bool, is_long: bool = False) -> str:
    return ' class="number"' if is_number else ' class="long"' if is_long else ""


def _exact(value: Any) -> str:
    return "" if value is None else repr(value.item() if hasattr(value, "item") else value)


def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
