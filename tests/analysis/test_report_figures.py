"""A report's figures: each that the study has data for, and in words and numbers what it shows."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_figures import DECODERS, DESIGNS, SAMPLING_STEPS, SCALES, sources_of
from PIL import Image
from report_html import DIGITS, Element, by_id, digits_html, parsed, section
from run_folders import collect, fid_of, gmacs_of, write_run

from analysis.drawing.style import WIDTHS
from analysis.drawing.write import DPI
from analysis.figures import CATALOGUE, draw
from analysis.figures.sources import Source
from analysis.report.figures import figures
from analysis.report.pictures import PICTURES
from analysis.results.tables import load

pytestmark = pytest.mark.slow

# What a study of sizes, patch sizes and seeds, scored in one way, has no data for.
OTHER_STUDIES = {"blocks", "sampling-compute", "isoflop", "guidance", "decoders"}


@pytest.fixture(scope="module")
def page() -> Element:
    return parsed(digits_html())


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    return sources_of(tmp_path_factory.mktemp("studies"))


def alt(page: Element, name: str) -> str:
    (image,) = by_id(page, f"figure-{name}").all("img")
    return image.attributes["alt"]


def described(name: str, source: Source, folder: Path) -> tuple[str, pd.DataFrame]:
    """The figure's text for those who do not see it, and its data."""
    files = draw(name, [source], folder).files
    (path,) = (path for path in files if path.suffix == ".csv")
    data = pd.read_csv(path)
    return PICTURES[name].describe(data, source.tables), data


def test_every_figure_of_the_catalogue_is_drawn_or_said_to_be_missing(page: Element) -> None:
    drawn = {figure.attributes["id"].removeprefix("figure-") for figure in page.all("figure")}
    assert drawn == set(CATALOGUE) - OTHER_STUDIES
    missing = [item.text for item in by_id(page, "failures").all("li")]
    for name in OTHER_STUDIES:
        (line,) = (line for line in missing if line.startswith(f"Figure not drawn: {PICTURES[name].title}: "))
        assert "needed: " in line


def test_every_figure_has_a_title_a_convention_and_its_numbers(page: Element) -> None:
    section = by_id(page, "figures")
    titles = [heading.text for heading in section.all("h3")]
    assert len(set(titles)) == len(titles) == len(section.all("figure"))
    for figure in section.all("figure"):
        (caption,) = figure.all("figcaption")
        assert caption.text
        tables = figure.all("table")
        assert len(tables) == (figure.attributes["id"] != "figure-sample-grid")
    table = by_id(page, "table-gflops-vs-fid")
    assert len(table.all("tbody")[0].all("tr")) == len(pd.read_csv(DIGITS / "gflops_vs_fid.csv"))


def test_pictures_are_whole_and_narrow_ones_are_as_wide_as_a_paper_column(page: Element) -> None:
    for figure in page.all("figure"):
        sources = [(figure.all("img")[0], "src", WIDTHS["two"]), (figure.all("source")[0], "srcset", WIDTHS["one"])]
        for element, attribute, inches in sources:
            content = element.attributes[attribute].removeprefix("data:image/webp;base64,")
            image = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
            image.load()
            shown = (int(element.attributes["width"]), int(element.attributes["height"]))
            assert image.size == shown
            assert image.width == inches * DPI
            assert len(np.unique(np.asarray(image.convert("L")))) > 10


def test_the_page_is_small_enough_to_send() -> None:
    assert len(digits_html().encode()) < 3e6


def test_every_picture_says_what_it_shows_in_numbers(page: Element) -> None:
    compute = alt(page, "gflops-vs-fid")
    data = pd.read_csv(DIGITS / "gflops_vs_fid.csv").set_index(["panel", "label"])
    for panel, label in [("measured", "S/4"), ("measured", "XL/1"), ("published", "S/8"), ("published", "XL/2")]:
        row = data.loc[(panel, label)]
        assert f"{row['fid']:#.4g} at {row['gmacs']:#.4g} GMACs ({label})" in compute
    assert "The correlation of its mean with log10 GMACs is −0.930." in compute  # of the paper's Table 4
    evals = load(DIGITS).evals.query("seed == 0 and step == 600").set_index("label")
    for label in ("S/4", "XL/1"):
        assert f"{label} {evals.loc[label, 'fid']:#.4g}" in alt(page, "sample-grid")
    texts = [image.attributes["alt"] for image in page.all("img")]
    assert len(set(texts)) == len(texts)
    assert all(len(re.findall(r"\d", text)) > 10 for text in texts)
    assert not any("nan" in text for text in texts)


def test_curves_are_described_by_their_ends(page: Element) -> None:
    data = pd.read_csv(DIGITS / "fid_vs_steps.csv")
    for label, points in data.groupby("label"):
        first, last = points.iloc[0], points.iloc[-1]
        assert f"{label}: {first['fid']:#.4g} at step 150, {last['fid']:#.4g} at 600." in alt(page, "fid-vs-steps")


def test_the_number_of_falls_is_counted_along_the_compute(page: Element) -> None:
    points = pd.read_csv(DIGITS / "bubbles.csv").sort_values("gmacs")
    falls = sum(after < before for before, after in zip(points["fid"], points["fid"][1:], strict=False))
    assert f"falls in {falls} of 11 steps" in alt(page, "bubbles")


def test_the_predicted_model_is_described_with_its_interval(page: Element) -> None:
    row = pd.read_csv(DIGITS / "fitted_law.csv").query("held_out").iloc[0]
    said = f"{row['label']}, held out, is predicted at {row['line']:#.4g}, {row['low']:#.4g} to {row['high']:#.4g}"
    assert said in alt(page, "fitted-law")
    assert f"it scores {row['fid']:#.4g}, inside." in alt(page, "fitted-law")


def test_the_frontier_is_described_by_its_models(sources: dict[str, Source], tmp_path: Path) -> None:
    text, data = described("training-compute", sources["training-compute"], tmp_path)
    best = data.query("on_frontier").sort_values("training_gmacs")
    assert f"the {len(best)} best of {len(data)} scores" in text
    assert text.endswith(f"by compute: {', '.join(dict.fromkeys(best['label']))}.")


def test_patch_sizes_are_described_by_their_residuals(sources: dict[str, Source], tmp_path: Path) -> None:
    text, data = described("residuals", sources["residuals"], tmp_path)
    for patch, points in data.groupby("patch"):
        worst = points.sort_values("ratio").iloc[-1]
        worse = sum(points["ratio"] > 1)
        end = f"to {worst['ratio']:#.4g} ({worst['label']}), {worse} of {len(points)} worse than the law."
        assert re.search(rf"Patch size {patch}: [\d.]+ \(\w+/{patch}\) {re.escape(end)}", text)


def test_seeds_are_described_by_the_widest_and_the_narrowest_spread(sources: dict[str, Source], tmp_path: Path) -> None:
    text, data = described("seeds", sources["seeds"], tmp_path)
    spread = data.groupby("label")["percent"].agg(lambda values: max(values) - min(values))
    widest, narrowest = spread.idxmax(), spread.idxmin()
    assert re.search(rf"Farthest apart: {widest}, −[\d.]+ % to \+[\d.]+ %; closest together: {narrowest}, ", text)


def test_metrics_and_losses_are_described_by_their_ends(sources: dict[str, Source], tmp_path: Path) -> None:
    text, data = described("metrics", sources["metrics"], tmp_path)
    last = data.query("metric == 'kid' and label == 'XL/1'").iloc[0]
    assert f"KID: {data.query('metric == @last.metric')['mean'].iloc[0]:#.4g} for S/4" in text
    assert f"{last['mean']:#.4g} for XL/1, which has the most" in text
    text, _ = described("loss", sources["loss"], tmp_path)
    assert f"XL/1: {1.1 / 100**0.25:#.4g} at step 100, {1.1 / 2000**0.25:#.4g} at 2000." in text


def test_settings_of_the_evaluation_are_described_by_what_they_do(sources: dict[str, Source], tmp_path: Path) -> None:
    fid = np.mean([fid_of("B/2", 2000, seed) for seed in (0, 1)])
    few, many = SAMPLING_STEPS[0], 250  # the recipe's own steps are on the line too
    text, _ = described("sampling-compute", sources["sampling-compute"], tmp_path)
    assert f"B/2: {fid * (1 + 20 / few):#.4g} at sampling steps {few}, {fid:#.4g} at {many}." in text
    text, _ = described("guidance", sources["guidance"], tmp_path)
    best = f"best {fid / SCALES[-1]:#.4g} at {SCALES[-1]:g}."
    assert f"B/2 at training step 2,000: {fid:#.4g} at guidance scale 1, " in text
    assert best in text
    text, _ = described("decoders", sources["decoders"], tmp_path)
    assert all(f"{name} {fid + len(name):#.4g}" in text for name in DECODERS)


def test_designs_and_budgets_are_described_by_their_best(sources: dict[str, Source], tmp_path: Path) -> None:
    text, data = described("blocks", sources["blocks"], tmp_path)
    last = data.query("step == 2000").sort_values("fid")
    assert last["block"].tolist() == list(reversed(DESIGNS))
    assert ", ".join(f"{row['block']} {row['fid']:#.4g}" for _, row in last.iterrows()) in text
    text, data = described("isoflop", sources["isoflop"], tmp_path)
    for _, points in data.groupby("budget"):
        best = points.sort_values("fid").iloc[0]
        assert f"of {len(points)} models {best['label']} is the best with {best['fid']:#.4g}." in text


def test_a_score_that_is_not_a_number_costs_the_figures_only(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", "S/4")
    lines = (folder / "evals.jsonl").read_text()
    (folder / "evals.jsonl").write_text(re.sub(r'"fid": [\d.]+', '"fid": NaN', lines))
    drawn, undrawn = figures(collect(tmp_path / "runs", tmp_path / "results"))
    assert [figure.name for figure in drawn] == ["loss"]
    assert any("gmacs" not in line and "fid of S/4" in line for line in undrawn)


def test_the_papers_scores_alone_are_not_the_studys_figure(tmp_path: Path) -> None:
    (write_run(tmp_path / "runs", "S/4") / "evals.jsonl").unlink()
    drawn, undrawn = figures(collect(tmp_path / "runs", tmp_path / "results"))
    assert [figure.name for figure in drawn] == ["loss"]
    assert len(undrawn) == len(CATALOGUE) - 1


def test_one_model_has_pictures_and_words(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "S/4")
    drawn, _ = figures(collect(tmp_path / "runs", tmp_path / "results"))
    said = alt(section("figures", {"drawn": drawn}), "gflops-vs-fid")
    assert f"Measured, 1 models: the Fréchet distance goes from {fid_of('S/4', 2000):#.4g} at" in said
    assert f"{gmacs_of('S/4'):#.4g} GMACs (S/4)" in said
