"""How Chromium shows a report: sorting, filtering, widths, paper."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from report_html import DIGITS, Element, by_id, column, digits_html, parsed

from analysis.paper.tables import summary
from analysis.results.tables import load

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if os.environ.get("DITBENCH_REQUIRE_CHROMIUM") == "1":
    assert CHROMIUM, "DITBENCH_REQUIRE_CHROMIUM=1, and there is no chromium on the PATH"
pytestmark = [pytest.mark.chromium, pytest.mark.skipif(not CHROMIUM, reason="no chromium here")]


def browse(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
    command += ["--disable-background-networking", f"--user-data-dir={path.parent / 'profile'}"]
    command += ["--enable-logging=stderr", "--log-level=0", *options, path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def driven(html: str, script: str, tmp_path: Path) -> Element:
    """The page as it is after `script`; fails on anything that the page writes to the console."""
    path = tmp_path / "driven.html"
    path.write_text(html.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    done = browse(path, "--dump-dom", "--virtual-time-budget=2000")
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return parsed(done.stdout)


SORT = """
const button = [...document.querySelectorAll("#table-summary thead button")].find((b) => b.textContent === "HEADING");
for (let i = 0; i < CLICKS; i++) button.click();
"""


@pytest.mark.parametrize(("clicks", "direction"), [(1, "ascending"), (2, "descending"), (3, "ascending")])
@pytest.mark.parametrize(("heading", "name"), [("Fréchet distance ↓", "fid"), ("GMACs", "gmacs"), ("KID ↓", "kid")])
def test_a_click_sorts(tmp_path: Path, heading: str, name: str, clicks: int, direction: str) -> None:
    script = SORT.replace("HEADING", heading).replace("CLICKS", str(clicks))
    table = by_id(driven(digits_html(), script, tmp_path), "table-summary")
    data = summary(load(DIGITS)).data.sort_values(name, ascending=direction == "ascending")
    assert [cell.text for cell in column(table, "Model")] == data["label"].tolist()
    sorted_by = [header for header in table.all("thead")[0].all("th") if "aria-sort" in header.attributes]
    assert [(header.text, header.attributes["aria-sort"]) for header in sorted_by] == [(heading, direction)]


def test_missing_values_stay_last_and_text_is_sorted_as_text(tmp_path: Path) -> None:
    rows = [("b", "2"), ("a10", ""), ("a9", "10"), ("c", "-3")]
    body = "".join(f'<tr><th scope="row">{name}</th><td data-value="{value}">{value}</td></tr>' for name, value in rows)
    head = '<tr><th scope="col">name</th><th scope="col">value</th></tr>'
    small = f'<div><table id="small" class="sortable"><thead>{head}</thead><tbody>{body}</tbody></table></div>'
    html = digits_html()
    start = html.index('<main id="main">') + len('<main id="main">')
    page = html[:start] + small + html[start:]
    click = 'document.querySelectorAll("#small thead button")[COLUMN].click();'
    expected = {(1, 1): ["c", "b", "a9", "a10"], (1, 2): ["a9", "b", "c", "a10"], (0, 1): ["a9", "a10", "b", "c"]}
    for (which, clicks), names in expected.items():
        done = driven(page, click.replace("COLUMN", str(which)) * clicks, tmp_path)
        assert [cell.text for cell in column(by_id(done, "small"), "name")] == names


def test_the_filter_hides_rows_and_says_how_many_are_left(tmp_path: Path) -> None:
    script = (
        'const input = document.getElementById("filter-table-summary"); input.value = "xl/ 684,080";'
        'input.dispatchEvent(new Event("input"));'
    )
    page = driven(digits_html(), script, tmp_path)
    rows = by_id(page, "table-summary").all("tbody")[0].all("tr")
    assert [row.children[0].text for row in rows if "hidden" not in row.attributes] == ["XL/2"]
    assert "1 of 12 rows" in [output.text for output in page.all("output")]


def test_short_tables_are_sorted_and_not_filtered(tmp_path: Path) -> None:
    page = driven(digits_html(), "", tmp_path)
    filtered = [
        field.attributes["id"].removeprefix("filter-")
        for field in page.all("input")
        if "aria-label" in field.attributes
    ]
    rows = {table.attributes["id"]: len(table.all("tbody")[0].all("tr")) for table in page.all("table")}
    assert filtered == [name for name, number in rows.items() if number > 6]
    assert rows["table-laws-by-patch"] == 3
    assert by_id(page, "table-laws-by-patch").all("button")


FRAME = """<!DOCTYPE html><html><body><iframe id="frame" style="width:WIDTHpx;height:900px;border:0" src="inner.html"
onload="const page = frame.contentDocument, root = page.documentElement;
document.title = [root.clientWidth, root.scrollWidth, page.querySelectorAll('th button').length,
[...page.querySelectorAll('main > *, section > *')].filter(
  (each) => each.getBoundingClientRect().right > root.clientWidth + 1).length].join(' ')"></iframe></body></html>"""


@pytest.mark.parametrize("width", [1400, 768, 390])
def test_the_console_stays_empty_and_nothing_overflows(tmp_path: Path, width: int) -> None:
    """From a desk to a phone: only boxes of their own scroll sideways."""
    (tmp_path / "inner.html").write_text(digits_html(), encoding="utf-8")
    outer = tmp_path / "outer.html"
    outer.write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    done = browse(outer, "--dump-dom", "--virtual-time-budget=3000", "--allow-file-access-from-files")
    assert "CONSOLE" not in done.stderr
    client, scroll, buttons, outside = map(int, parsed(done.stdout).all("title")[0].text.split())
    assert client == scroll
    assert width - 20 <= client <= width  # a scroll bar
    assert buttons > 0
    assert outside == 0


def with_class(page: Element, name: str) -> list[Element]:
    return [element for element in page.all() if name in element.attributes.get("class", "").split()]


@pytest.mark.parametrize("event", ["focus", "pointerenter"])
def test_a_point_says_its_model_and_numbers(tmp_path: Path, event: str) -> None:
    script = (
        'const point = document.querySelector("#chart-fid-compute [data-size=XL][data-patch=\\"1\\"] .point");'
        f"point.dispatchEvent(new Event('{event}'));"
    )
    page = driven(digits_html(), script, tmp_path)
    (tip,) = with_class(page, "tip")
    data = summary(load(DIGITS)).data.query("label == 'XL/1'")
    assert tip.text.splitlines()[0] == "XL/1"
    assert f"Fréchet distance {data['fid'].mean():#.4g} (" in tip.text
    (point,) = with_class(page, "shown")
    assert point.attributes["aria-label"] == tip.text.replace("\n", ", ")
    assert not page.all("title")[1:]  # else the browser would show each a second time


def test_arrows_go_along_a_line_and_escape_hides(tmp_path: Path) -> None:
    script = """
    const line = document.querySelector("#chart-fid-training .series"), points = [...line.querySelectorAll(".point")];
    const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    points.at(-1).focus(); press("ArrowLeft"); press("ArrowLeft");
    const at = points.indexOf(document.activeElement), shown = document.querySelectorAll(".tip").length;
    press("Escape");
    document.title = [points.length, at, shown, document.querySelectorAll(".tip").length,
      points.map((point) => point.tabIndex).join("")].join();
    """
    page = driven(digits_html(), script, tmp_path)
    assert page.all("title")[0].text == "4,1,1,0,-10-1-1"


def test_sizes_and_patches_are_switched_off_in_every_chart(tmp_path: Path) -> None:
    script = """
    for (const name of ["size", "patch"])
      document.querySelector(`.legend input[data-group=${name}][value="${{ size: "XL", patch: "2" }[name]}"]`).click();
    """
    page = driven(digits_html(), script, tmp_path)
    for figure in (by_id(page, name) for name in ("chart-fid-compute", "chart-fid-training", "chart-kid-compute")):
        series = with_class(figure, "series")
        off = {(each.attributes["data-size"], each.attributes["data-patch"]) for each in with_class(figure, "off")}
        models = {(each.attributes["data-size"], each.attributes["data-patch"]) for each in series}
        assert off == {(size, patch) for size, patch in models if size == "XL" or patch == "2"}
        assert len(off) == 6
    assert not with_class(by_id(driven(digits_html(), script * 2, tmp_path), "main"), "off")


@pytest.mark.parametrize("theme", ["dark", "light", ""])
def test_the_page_is_light_or_dark_as_chosen(tmp_path: Path, theme: str) -> None:
    script = f"""
    const choice = document.querySelector(".theme select");
    choice.value = "{theme}"; choice.dispatchEvent(new Event("change"));
    document.title = getComputedStyle(document.body).backgroundColor;
    """
    page = driven(digits_html(), script, tmp_path)
    expected = {"dark": "rgb(20, 23, 26)", "light": "rgb(255, 255, 255)", "": "rgb(255, 255, 255)"}
    assert page.all("title")[0].text == expected[theme]


def test_it_prints(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(digits_html(), encoding="utf-8")
    browse(path, f"--print-to-pdf={tmp_path / 'page.pdf'}")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
