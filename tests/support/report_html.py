"""A report's page as its elements, and the page of the shipped digits study."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from analysis.report.page import Section
from analysis.report.write import report
from analysis.results.tables import load

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "results" / "digits"
VOID = {"meta", "img", "input", "br", "link", "hr", "source"}


@cache
def digits_html() -> str:
    """The page of the shipped digits study, from tables alone: made once, it takes many seconds."""
    return report(load(DIGITS))


@dataclass
class Element:
    """An element and what is in it; `text` is all of its text."""

    tag: str
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def all(self, *tags: str) -> list[Element]:
        """Descendants of these tags, in their order; all without tags."""
        found = []
        for child in self.children:
            found += [child] if not tags or child.tag in tags else []
            found += child.all(*tags)
        return found


class Parser(HTMLParser):
    """Refuses what is not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("document", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


def parsed(html: str) -> Element:
    """`html`, whole or a part of a page; everything in it must be closed."""
    parser = Parser()
    parser.feed(html)
    parser.close()
    assert len(parser.open) == 1, parser.open[-1].tag
    return parser.open[0]


def section(id: str, content: dict[str, Any]) -> Element:
    """The body of that section alone, with this content."""
    return parsed(Section(id, "", content).html())


def by_id(page: Element, name: str) -> Element:
    """The one element of that id."""
    (found,) = [element for element in page.all() if element.attributes.get("id") == name]
    return found


def column(table: Element, heading: str) -> list[Element]:
    """The cells under the heading of that text."""
    headings = [header.text for header in table.all("thead")[0].all("th")]
    return [row.children[headings.index(heading)] for row in table.all("tbody")[0].all("tr")]
