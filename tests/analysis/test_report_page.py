"""The page is sound, accessible, and needs nothing from outside."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pytest
from report_html import Element, digits_html, parsed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page() -> Element:
    return parsed(digits_html())


def test_tables_have_captions_and_headers_their_scope(page: Element) -> None:
    tables = page.all("table")
    assert len(tables) >= 8
    for table in tables:
        (caption,) = table.all("caption")
        assert caption.text.strip()
        assert all(header.attributes["scope"] in ("col", "row") for header in table.all("th"))
        columns = len(table.all("thead")[0].all("th"))
        for row in table.all("tbody")[0].all("tr"):
            assert len(row.children) == columns
            assert [cell.tag for cell in row.children] == ["th"] + ["td"] * (columns - 1)
    assert len({table.all("caption")[0].text for table in tables}) == len(tables)


def test_ids_are_unique_and_references_resolve(page: Element) -> None:
    ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for element in page.all():
        for name in ("href", "for", "aria-labelledby", "aria-describedby"):
            if name in element.attributes:
                assert element.attributes[name].removeprefix("#") in ids
    labelled = {reference for e in page.all() if (reference := e.attributes.get("aria-labelledby"))}
    assert {section.attributes["id"] + "-heading" for section in page.all("section")} <= labelled


def test_nothing_is_loaded_from_outside(page: Element) -> None:
    for element in page.all():
        assert element.tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name in ("src", "srcset"):
            assert element.attributes.get(name, "data:image/webp").startswith("data:image/webp")
            assert "," not in element.attributes.get(name, "").partition("base64,")[2]  # one image, not a list
        assert element.attributes.get("href", "#").startswith("#")
        assert not [name for name in element.attributes if name.startswith("on") or name == "style"]
    assert not re.search(r"url\(|@import|https?://|fetch\(|XMLHttp", digits_html())
    (policy,) = [e for e in page.all("meta") if e.attributes.get("http-equiv") == "Content-Security-Policy"]
    assert policy.attributes["content"].startswith("default-src 'none'; img-src data:;")


def test_language_title_and_ordered_headings(page: Element) -> None:
    assert page.all("html")[0].attributes["lang"] == "en"
    assert (
        page.all("title")[0].text == page.all("h1")[0].text == "digits-seeds: a scaling study of Diffusion Transformers"
    )
    levels = [int(element.tag[1]) for element in page.all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for box in page.all():
        if "tabindex" in box.attributes:  # what can be reached says what it is
            assert box.attributes["role"] in ("region", "img")
            assert box.attributes.get("aria-label") or box.all("title")[0].text
    for svg in page.all("svg"):
        assert svg.attributes.get("aria-hidden") == "true" or svg.attributes["aria-labelledby"]
    for field in page.all("input"):
        assert field.attributes["type"] == "checkbox"
    labels = [label for label in page.all("label") if label.text.strip()]
    assert len(labels) == len(page.all("input")) > 0


def luminance(colour: str) -> float:
    """WCAG 2: relative luminance of "#rrggbb"."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_enough_in_light_dark_and_print() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    folder = files("analysis.report") / "templates"
    css = "".join((folder / f"{name}.css").read_text(encoding="utf-8") for name in ("report", "charts"))
    pairs = dict(re.findall(r"--(\w+): light-dark\((#\w{6}, #\w{6})\);", css))
    light, dark = ({name: pair.split(", ")[which] for name, pair in pairs.items()} for which in (0, 1))
    for palette in (light, dark):
        for ink in ("text", "quiet", "link"):
            for ground in ("page", "raised"):
                assert contrast(palette[ink], palette[ground]) >= 4.5, (ink, ground, palette)
        marks = [f"s{index}" for index in range(8)]
        for mark in ("focus", *marks):
            assert contrast(palette[mark], palette["page"]) >= 3, (mark, palette)
    # No other colour is used; paper is light.
    assert not re.search(r"#[0-9a-f]{3,8}\b", re.sub(r"light-dark\(.*?\)", "", css))
    assert not re.search(r"rgba?\(|hsl|opacity|outline: 0", css)
    assert re.search(r"@media print \{\s*:root[^}]*color-scheme: light;", css)


def test_no_sentence_is_said_twice(page: Element) -> None:
    said = [text for block in page.all("p", "li", "figcaption") for text in re.split(r"(?<=[.:])\s+", block.text)]
    long = [text for text in said if len(text) > 40]
    assert len(long) > 15
    assert sorted(long) == sorted(set(long))
