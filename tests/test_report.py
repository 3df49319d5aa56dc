"""The report of a study: its HTML, its numbers, what it says of runs, and how a browser shows it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
import yaml
from run_folders import evaluation, write_lines, write_run
from typer.testing import CliRunner

from analysis import report_cli, report_page
from analysis.export_tables import summary
from analysis.report import fits_in_words, report, write_report
from analysis.run_history import differing_keys, hours, read_histories, read_plan
from analysis.tables import ResultsError, collect, load

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "results" / "digits"
VOID = {"meta", "img", "input", "br", "link", "hr"}


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
    parser = Parser()
    parser.feed(html)
    parser.close()
    assert len(parser.open) == 1, parser.open[-1].tag
    return parser.open[0]


def by_id(page: Element, name: str) -> Element:
    (found,) = [element for element in page.all() if element.attributes.get("id") == name]
    return found


@pytest.fixture(scope="module")
def html() -> str:
    """The report of the shipped digits study, from tables alone."""
    return report(load(DIGITS))


@pytest.fixture(scope="module")
def page(html: str) -> Element:
    return parsed(html)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three models and two seeds, with what `bench` records of their starts."""
    for seed in (0, 1):
        for label in ("S/4", "S/2", "B/4"):
            folder = write_run(tmp_path / "runs", label, seed)
            session = {"time": "2024-01-01T00:00:00Z", "host": "secret-node", "device": "cpu", "precision": "fp32"}
            session |= {"torch": "2.6", "python": "3.11.7", "commit": "c0ffee", "threads": 1, "world_size": 2}
            write_lines(folder / "sessions.jsonl", [session | {"resumed_from_step": 0}])
    return tmp_path / "runs"


def report_of(sweep: Path, **what: Any) -> Element:
    collect(sweep, sweep.parent / "results")
    out = write_report(sweep.parent / "results", sweep.parent / "report.html", **what)
    return parsed(out.read_text(encoding="utf-8"))


# The page is sound, accessible and needs nothing from outside


def test_every_picture_says_what_it_shows_in_numbers(page: Element) -> None:
    compute, _, samples = (image.attributes["alt"] for image in page.all("img"))
    data = pd.read_csv(DIGITS / "gflops_vs_fid.csv").set_index(["panel", "label"])
    for panel, label in [("measured", "S/4"), ("measured", "XL/1"), ("published", "S/8"), ("published", "XL/2")]:
        row = data.loc[(panel, label)]
        assert f"{row['fid']:#.4g} at {row['gmacs']:#.4g} GMACs ({label})" in compute
    evals = load(DIGITS).evals.query("seed == 0 and step == 600").set_index("label")
    for label in ("S/4", "XL/1"):
        assert f"{label} {evals.loc[label, 'fid']:#.4g}" in samples


def test_curves_are_described_by_their_ends(page: Element) -> None:
    data = pd.read_csv(DIGITS / "fid_vs_steps.csv")
    alt = page.all("img")[1].attributes["alt"]
    for label, points in data.groupby("label"):
        first, last = points.iloc[0], points.iloc[-1]
        assert f"{label}: {first['fid']:#.4g} at step 150, {last['fid']:#.4g} at 600." in alt


def test_tables_have_captions_and_headers_their_scope(page: Element) -> None:
    tables = page.all("table")
    assert len(tables) >= 6
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
        for name in ("href", "for", "aria-labelledby"):
            if name in element.attributes:
                assert element.attributes[name].removeprefix("#") in ids


def test_nothing_is_loaded_from_outside(html: str, page: Element) -> None:
    for element in page.all():
        assert element.tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert element.attributes.get("src", "data:image/png").startswith("data:image/png")
        assert element.attributes.get("href", "#").startswith("#")
        assert not [name for name in element.attributes if name.startswith("on") or name in ("srcset", "style")]
    assert not re.search(r"url\(|@import|https?://|fetch\(|XMLHttp", html)
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
        if "tabindex" in box.attributes:
            assert box.attributes["role"] == "region"
            assert box.attributes["aria-label"]


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
    css = (Path(report_page.__file__).parent / "report.css").read_text(encoding="utf-8")
    palettes = [dict(re.findall(r"--(\w+): (#\w{6});", block)) for block in re.findall(r":root \{(.*?)\}", css, re.S)]
    assert len(palettes) == 3
    for palette in palettes:
        for ink in ("text", "quiet", "link"):
            for ground in ("page", "raised"):
                assert contrast(palette[ink], palette[ground]) >= 4.5, (ink, ground, palette)
        if "focus" in palette:
            assert contrast(palette["focus"], palette["page"]) >= 3
    # No colour is used that these palettes do not name, but the white under the pictures.
    outside = re.sub(r":root \{.*?\}", "", css, flags=re.S)
    assert set(re.findall(r"#[0-9a-f]{3,6}\b", outside)) == {"#ffffff"}
    assert not re.search(r"rgba?\(|hsl|opacity|outline: (none|0)", outside)


# The numbers are those of the tables


def column(table: Element, heading: str) -> list[Element]:
    headings = [header.text for header in table.all("thead")[0].all("th")]
    return [row.children[headings.index(heading)] for row in table.all("tbody")[0].all("tr")]


def test_the_page_has_the_numbers_of_the_summary(page: Element) -> None:
    data = summary(load(DIGITS)).data
    table = by_id(page, "table-summary")
    assert [cell.text for cell in column(table, "Model")] == data["label"].tolist()
    for heading, name in [("Fréchet distance ↓", "fid"), ("GMACs", "gmacs"), ("KID ↓", "kid"), ("Loss ↓", "loss")]:
        assert [float(cell.attributes["data-value"]) for cell in column(table, heading)] == data[name].tolist()
    first = data.iloc[0]
    shown = column(table, "Fréchet distance ↓")[0].text
    assert shown == f"{first['fid']:.2f} {first['fid_min']:.2f} to {first['fid_max']:.2f}"


def test_every_score_of_every_run_is_there(page: Element) -> None:
    evals = load(DIGITS).evals
    cells = column(by_id(page, "table-evals"), "fid")
    assert [float(cell.attributes["data-value"]) for cell in cells] == evals["fid"].tolist()


def test_the_whole_evaluation_key_is_there(page: Element) -> None:
    study = by_id(page, "study")
    pairs = dict(zip([e.text for e in study.all("dt")], [e.text for e in study.all("dd")], strict=True))
    expected = {"weights": "ema", "sampler": "ddpm", "sampling_steps": "25", "clip_denoised": "True"}
    expected |= {"guidance_scale": "1.0", "guidance_channels": "none", "decoder": "pixels", "num_samples": "250"}
    expected |= {"labels": "balanced", "reference": "digits-1797-b41ca9fd", "extractor": "digits-cnn-fb4b5713"}
    assert pairs.items() >= (expected | {"kid_subset_size": "100"}).items()
    assert "true FLOPs are twice as many" in study.text


def test_fits_in_words() -> None:
    lines = fits_in_words(load(DIGITS))
    assert len(lines) == 4
    assert "is −0.950; power law: Fréchet distance = 24.64 × GMACs^−0.222" in lines[0]
    assert "8 of 8 neighbouring pairs of patch sizes and in 9 of 9 of sizes" in lines[0]
    means = pd.read_csv(DIGITS / "gflops_vs_fid.csv").query("panel == 'measured'")
    slope, intercept = np.polyfit(np.log(means["gmacs"]), np.log(means["fid"]), 1)
    assert f"Fréchet distance = {np.exp(intercept):.2f} × GMACs^−{-slope:.3f}" in lines[3]
    assert "adaln-zero" in lines[3]


def test_the_same_tables_give_the_same_bytes(html: str) -> None:
    assert report(load(DIGITS)) == html


# Run folders


def test_without_run_folders_the_page_says_what_it_cannot_know(page: Element) -> None:
    assert "As far as the tables say" in by_id(page, "recipe").text
    assert "recorded in the run folders only" in by_id(page, "failures").text
    assert "not known" in by_id(page, "cost").text
    assert "fid_infinity, sfid" in by_id(page, "failures").text


def test_recipe_environment_and_failures_of_the_run_folders(sweep: Path) -> None:
    folder = next(sweep.glob("*s-4-s40"))
    failures = [
        {"time": "t1", "error": "out of memory: <b>1 & 2</b>", "attempt": "a"},
        {"time": "t2", "error": None},
        {"time": "t3", "error": "node died", "attempt": "b"},
    ]
    write_lines(folder / "failures.jsonl", failures)
    write_lines(folder / "scoring-failures.jsonl", [{"time": "t4", "error": "no samples", "attempt": "c"}])
    page = report_of(sweep, runs=sweep)
    (code,) = by_id(page, "recipe").all("pre")
    recipe = yaml.safe_load(code.text)
    assert recipe == {
        "model": {"block": "adaln-zero"},
        "data": {"name": "digits"},
        "train": {"steps": 2000, "batch_size": 64},
        "evaluation": {"num_samples": 1000},
    }
    differing = by_id(page, "table-recipes")
    assert [cell.text for cell in column(differing, "model.name")] == ["DiT-S/4", "DiT-B/4", "DiT-S/2"] * 2
    assert [cell.text for cell in column(differing, "seed")] == ["0"] * 3 + ["1"] * 3
    (starts,) = column(by_id(page, "table-sessions"), "number of starts")
    assert starts.attributes["data-value"] == "6"
    environment = by_id(page, "table-sessions").text
    assert all(fact in environment for fact in ("2.6", "3.11.7", "c0ffee", "fp32", "cpu"))
    assert "secret-node" not in page.text
    failed = [item.text for item in by_id(page, "failures").all("li")]
    assert failed[:4] == [
        "No run was given up.",
        "S/4 (s40), training, t1: out of memory: <b>1 & 2</b>",
        "S/4 (s40), training, t3: node died",
        "S/4 (s40), scoring, t4: no samples",
    ]


def test_what_failed_and_what_is_missing(sweep: Path) -> None:
    failed, unfinished = next(sweep.glob("*s-4-s40")), next(sweep.glob("*s-2-s21"))
    for folder in (failed, unfinished):
        (folder / "finished.json").unlink()
    (failed / "error.json").write_text('{"error": "out of memory"}')
    write_lines(unfinished / "evals.jsonl", [evaluation("S/2", 500, 1)])
    (unfinished / "samples" / "500.npy").unlink()
    items = [item.text for item in by_id(report_of(sweep), "failures").all("li")]
    assert "S/4, seed 0 (s40) was given up." in items
    assert "S/2, seed 1 (s21) has not finished" in items
    assert "S/2, seed 1 (s21) has no score at step 2,000" in items
    assert "1 of 6 runs have no samples in the tables" in items


def test_a_study_without_scores_has_a_report(tmp_path: Path) -> None:
    (write_run(tmp_path / "runs", "S/4") / "evals.jsonl").unlink()
    page = report_of(tmp_path / "runs")
    assert not page.all("img")
    assert "There is no score yet." in by_id(page, "scores").text
    missing = [item.text for item in by_id(page, "failures").all("li")]
    assert sum(line.startswith("Figure not drawn: ") for line in missing) == 3


def test_a_run_that_has_only_just_begun_is_no_obstacle(sweep: Path) -> None:
    for path in next(sweep.glob("*s-4-s40")).iterdir():
        if path.is_file() and path.name != "config.yaml":
            path.unlink()
    page = report_of(sweep, runs=sweep)
    assert "S/4, seed 0 (s40) has not finished" in by_id(page, "failures").text


def test_hours_are_steps_over_speed_times_devices(sweep: Path) -> None:
    folder = next(sweep.glob("*s-4-s40"))
    write_lines(
        folder / "train.jsonl", [{"step": step, "loss": 1.0, "images_per_s": 64 / 36} for step in (100, 200, 300)]
    )
    session = {"time": "t", "device": "cpu", "precision": "fp32", "commit": "c"}
    # The third start went back behind the second: its four devices trained all from step 100 on.
    starts = [(0, 1), (200, 2), (100, 4)]
    rows = [session | {"resumed_from_step": step, "world_size": size} for step, size in starts]
    write_lines(folder / "sessions.jsonl", rows)
    rates = [evaluation("S/4", step, num_samples=3600) | {"sampling_images_per_s": 2.0} for step in (500, 1000)]
    write_lines(folder / "evals.jsonl", rates)
    tables = collect(sweep, sweep.parent / "results")
    spent = hours(tables, read_histories(sweep, tables)).set_index("run").loc["s40"]
    assert spent["training_hours"] == pytest.approx(3.0)
    assert spent["training_device_hours"] == pytest.approx(1 + 4 + 4)
    assert spent["sampling_hours"] == pytest.approx(1.0)
    alone = hours(tables, []).set_index("run")
    assert alone["training_device_hours"].isna().tolist() == [True] * 6


def plan_of(sweep: Path, steps_left: int = 2000, hours: float | None = 0.01, **other: Any) -> Path:
    runs = [yaml.safe_load(path.read_text())["id"] for path in sorted(sweep.glob("*/config.yaml"))]
    rows = [
        {"id": run, "steps_left": steps_left, "training_gpu_hours": hours, "scoring_gpu_hours": hours} for run in runs
    ]
    path = sweep.parent / "plan.json"
    path.write_text(json.dumps({"runs": rows} | other))
    return path


def test_the_plan_stands_beside_the_hours_spent(sweep: Path) -> None:
    page = report_of(sweep, runs=sweep, plan=plan_of(sweep))
    spent = 2 * 2000 * 64 / 1234.5 / 3600
    assert f"Training took {spent / 0.01:.2f} times the planned device-hours (6 of 6 runs" in by_id(page, "cost").text
    cells = column(by_id(page, "table-hours"), "training device hours")
    assert [float(cell.attributes["data-value"]) for cell in cells] == pytest.approx([spent] * 6)


def test_a_plan_without_times_is_no_obstacle(sweep: Path) -> None:
    page = report_of(sweep, runs=sweep, plan=plan_of(sweep, hours=None))
    assert "No run has both planned and spent device-hours." in by_id(page, "cost").text


def test_shared_and_differing_keys() -> None:
    shared, differing = differing_keys([{"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 1, "c": 3}, "d": [1], "e": 0}])
    assert shared == {"a": {"b": 1}, "d": [1]}
    assert differing["a.c"].tolist() == [2, 3]
    assert differing["e"].isna().tolist() == [True, False]
    assert differing.columns.tolist() == ["a.c", "e"]


# What is refused


def test_mixed_evaluation_keys_are_refused(sweep: Path) -> None:
    write_lines(next(sweep.glob("*s-4-s40")) / "evals.jsonl", [evaluation("S/4", 500, guidance_scale=1.5)])
    with pytest.raises(ResultsError, match="differ in guidance_scale"):
        report_of(sweep)
    assert not (sweep.parent / "report.html").exists()


def test_run_folders_of_another_sweep_are_refused(sweep: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "others", "XL/1")
    with pytest.raises(ResultsError, match=r"others: the tables lack the run xl10; accepted: the folder that"):
        report_of(sweep, runs=tmp_path / "others")
    with pytest.raises(ResultsError, match=r"nowhere: no run folder there"):
        report_of(sweep, runs=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{oops", "not a plan .* accepted: what `ditbench sweep plan --json` prints"),
        ("[]", "not a plan"),
        ('{"runs": [{"id": "s40"}]}', "not a plan .*steps_left"),
        ('{"runs": []}', "plans none of these runs"),
    ],
)
def test_what_is_no_plan_is_refused(sweep: Path, content: str, message: str) -> None:
    path = sweep.parent / "plan.json"
    path.write_text(content)
    with pytest.raises(ResultsError, match=message):
        read_plan(path, collect(sweep, sweep.parent / "results"))


def test_a_plan_of_what_was_left_later_is_refused(sweep: Path) -> None:
    with pytest.raises(ResultsError, match=r"had 500 of 2000 steps left; accepted: a plan made before the first start"):
        read_plan(plan_of(sweep, steps_left=500), collect(sweep, sweep.parent / "results"))


def test_a_report_needs_neither_torch_nor_the_code_that_made_the_runs() -> None:
    code = (
        "import sys, analysis.report, analysis.report_cli;"
        "print(sorted({'torch', 'models', 'bench', 'sweeps'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_writes_beside_the_tables_or_where_it_is_told(sweep: Path, tmp_path: Path) -> None:
    collect(sweep, tmp_path / "results")
    app = typer.Typer()
    app.command()(report_cli.report)
    done = CliRunner().invoke(app, [str(tmp_path / "results"), "--runs", str(sweep), "--plan", str(plan_of(sweep))])
    assert done.stdout.strip() == str(tmp_path / "results" / "report.html")
    CliRunner().invoke(app, [str(tmp_path / "results"), "--out", str(tmp_path / "page.html")])
    assert parsed((tmp_path / "page.html").read_text(encoding="utf-8")).all("h1")


# In a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if os.environ.get("DITBENCH_REQUIRE_CHROMIUM") == "1":
    assert CHROMIUM, "DITBENCH_REQUIRE_CHROMIUM=1, and there is no chromium on the PATH"
in_browser = pytest.mark.skipif(not CHROMIUM, reason="no chromium here")


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


@in_browser
@pytest.mark.parametrize(("clicks", "direction"), [(1, "ascending"), (2, "descending"), (3, "ascending")])
@pytest.mark.parametrize(("heading", "name"), [("Fréchet distance ↓", "fid"), ("GMACs", "gmacs"), ("KID ↓", "kid")])
def test_a_click_sorts(html: str, tmp_path: Path, heading: str, name: str, clicks: int, direction: str) -> None:
    script = SORT.replace("HEADING", heading).replace("CLICKS", str(clicks))
    table = by_id(driven(html, script, tmp_path), "table-summary")
    data = summary(load(DIGITS)).data.sort_values(name, ascending=direction == "ascending")
    assert [cell.text for cell in column(table, "Model")] == data["label"].tolist()
    sorted_by = [header for header in table.all("thead")[0].all("th") if "aria-sort" in header.attributes]
    assert [(header.text, header.attributes["aria-sort"]) for header in sorted_by] == [(heading, direction)]


@in_browser
def test_missing_values_stay_last_and_text_is_sorted_as_text(html: str, tmp_path: Path) -> None:
    rows = [("b", "2"), ("a10", ""), ("a9", "10"), ("c", "-3")]
    body = "".join(f'<tr><th scope="row">{name}</th><td data-value="{value}">{value}</td></tr>' for name, value in rows)
    head = '<tr><th scope="col">name</th><th scope="col">value</th></tr>'
    small = f'<div><table id="small" class="sortable"><thead>{head}</thead><tbody>{body}</tbody></table></div>'
    start = html.index('<main id="main">') + len('<main id="main">')
    page = html[:start] + small + html[html.index("</main>") :]
    click = 'document.querySelectorAll("#small thead button")[COLUMN].click();'
    expected = {(1, 1): ["c", "b", "a9", "a10"], (1, 2): ["a9", "b", "c", "a10"], (0, 1): ["a9", "a10", "b", "c"]}
    for (which, clicks), names in expected.items():
        done = driven(page, click.replace("COLUMN", str(which)) * clicks, tmp_path)
        assert [cell.text for cell in column(by_id(done, "small"), "name")] == names


@in_browser
def test_the_filter_hides_rows_and_says_how_many_are_left(html: str, tmp_path: Path) -> None:
    script = (
        'const input = document.getElementById("filter-table-summary"); input.value = "xl/ 684,080";'
        'input.dispatchEvent(new Event("input"));'
    )
    page = driven(html, script, tmp_path)
    rows = by_id(page, "table-summary").all("tbody")[0].all("tr")
    assert [row.children[0].text for row in rows if "hidden" not in row.attributes] == ["XL/2"]
    assert "1 of 12 rows" in [output.text for output in page.all("output")]


@in_browser
def test_the_console_stays_empty_and_nothing_overflows(html: str, tmp_path: Path) -> None:
    """At the width of a phone and of a desk: only boxes of their own scroll sideways."""
    for width in (390, 1280):
        inner = tmp_path / "inner.html"
        inner.write_text(html, encoding="utf-8")
        report_width = (
            "const page = frame.contentDocument.documentElement;"
            'document.title = `${page.clientWidth} ${page.scrollWidth} ${page.querySelectorAll("th button").length}`;'
        )
        outer = tmp_path / "outer.html"
        outer.write_text(
            f'<!DOCTYPE html><html><body><iframe id="frame" style="width:{width}px;height:800px;border:0" '
            f"src=\"inner.html\" onload='{report_width}'></iframe></body></html>",
            encoding="utf-8",
        )
        done = browse(outer, "--dump-dom", "--virtual-time-budget=3000", "--allow-file-access-from-files")
        assert "CONSOLE" not in done.stderr
        client, scroll, buttons = map(int, parsed(done.stdout).all("title")[0].text.split())
        assert client == scroll == width
        assert buttons > 0


@in_browser
def test_it_prints(html: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(html, encoding="utf-8")
    browse(path, f"--print-to-pdf={tmp_path / 'page.pdf'}")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
