"""A report's charts: every point where its numbers are, and said in words; pictures of what charts do not show."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_figures import block_study, isoflop_study, sampling_study
from report_html import DIGITS, Element, by_id, digits_html, parsed, section
from run_folders import collect, fid_of, write_lines, write_run
from run_folders import evaluation as evaluated

from analysis.figures import CATALOGUE
from analysis.report import charts
from analysis.report.chart import Axis, Chart, Curve, Point, Series, tick_text
from analysis.report.figures import SHOWN, pictures
from analysis.report.study import Study
from analysis.results.tables import Tables, load

# Geometry


def chart(points: list[tuple[float, float]], is_log: bool = False, labels: bool = False) -> Chart:
    series = [Series([Point(x, y, f"{x}")], label=f"model {x:g}" if labels else "") for x, y in points]
    return Chart("c", "C", "", Axis("x", is_log), Axis("y", is_log), series, {})


def test_equal_steps_and_equal_ratios_are_equally_far_apart() -> None:
    at = chart([(1, 10), (2, 20), (3, 30)]).drawn()
    assert at.x(2) - at.x(1) == pytest.approx(at.x(3) - at.x(2), abs=0.11)
    assert at.y(10) > at.y(20) > at.y(30)
    at = chart([(1, 10), (10, 100), (100, 1000)], is_log=True).drawn()
    assert at.x(10) - at.x(1) == pytest.approx(at.x(100) - at.x(10), abs=0.11)


@pytest.mark.parametrize("is_log", [True, False])
@pytest.mark.parametrize("ends", [(1e-7, 1e12), (0.001, 0.0012), (40, 180), (3, 3), (9_999, 10_001)])
def test_axes_have_a_few_round_ticks_inside(ends: tuple[float, float], is_log: bool) -> None:
    at = chart([(end, end) for end in ends], is_log).drawn()
    places = [place for place, _ in at.x.ticks()]
    assert 1 <= len(places) <= 9
    assert all(at.left <= place <= at.right for place in places)
    assert len({text for _, text in at.x.ticks()}) == len(places)
    assert places == sorted(places)


def test_ticks_are_plain_numbers_or_powers() -> None:
    texts = {0: "0", 0.001: "0.001", 20_000: "20,000", -5: "−5", 1e6: "10⁶", 2e-5: "2·10⁻⁵"}
    assert {value: tick_text(value) for value in texts} == texts


def test_labels_keep_off_points_and_each_other() -> None:
    random = np.random.default_rng(0)
    at = chart([(x, y) for x, y in random.uniform(1, 2, (40, 2)).tolist()], labels=True).drawn()
    width = len("model 1.23456") * 6.4
    boxes = []
    for _, x, y, anchor in at.labels:
        left = x - width * {"start": 0, "middle": 0.5, "end": 1}[anchor]
        boxes.append((left, y - 10, left + len("model 1") * 6.4, y + 3))
    assert 5 < len(boxes) < 40
    assert not any(one[0] < other[0] < one[2] and one[1] < other[1] < one[3] for one, other in pairwise(sorted(boxes)))


def test_a_band_is_drawn_there_and_back() -> None:
    curve = Curve([1, 2, 4], [2, 2, 2], [1, 1, 1], [3, 3, 3])
    at = Chart("c", "", "", Axis("x"), Axis("y"), [Series([Point(1, 1, "")])], {}, [curve]).drawn()
    outline = [tuple(map(float, pair.split())) for pair in re.findall(r"[\d.]+ [\d.]+", at.band(curve))]
    assert [x for x, _ in outline] == [at.x(x) for x in (1, 2, 4, 4, 2, 1)]
    assert [y for _, y in outline] == [at.y(3)] * 3 + [at.y(1)] * 3


# What the charts of a study show


@pytest.fixture(scope="module")
def digits() -> Study:
    return Study.of(load(DIGITS))


def of(folder: Path) -> Study:
    return Study.of(collect(folder / "runs", folder / "results"))


def test_each_model_is_where_its_score_and_compute_are(digits: Study) -> None:
    evals: Any = load(DIGITS).evals.query("step == 600")
    drawn = charts.compute(digits, "fid", None)
    assert drawn.x.title.endswith("(MMACs)")
    assert len(drawn.series) == 12
    for series in drawn.series:
        rows = evals[evals["label"] == series.label]
        (point,) = series.points
        assert point.x == pytest.approx(1000 * rows["gmacs"].iloc[0])
        assert (point.y, point.low, point.high) == pytest.approx((rows.fid.mean(), rows.fid.min(), rows.fid.max()))
        assert point.title.startswith(f"{series.label}\n")
        assert f"Fréchet distance {rows.fid.mean():#.4g} (" in point.title
        size, patch = series.label.split("/")
        assert (series.groups["size"], series.groups["patch"]) == (size, patch)
    assert {name: list(values) for name, values in drawn.legend.items()} == {
        "size": ["S", "B", "L", "XL"],
        "patch": ["4", "2", "1"],
    }


def test_the_frontier_falls_and_no_point_is_below_it(digits: Study) -> None:
    drawn = charts.training(digits, "fid")
    (curve,) = drawn.curves
    assert list(curve.x) == sorted(curve.x)
    assert list(curve.y) == sorted(curve.y, reverse=True)
    points = [point for series in drawn.series for point in series.points]
    assert len(points) == 12 * 4
    for point in points:
        reached = [y for x, y in zip(curve.x, curve.y, strict=True) if x <= point.x]
        assert point.y >= min(reached)
    cost = load(DIGITS).runs.set_index("label").loc["XL/1"].iloc[0]
    (line,) = [series for series in drawn.series if series.groups["size"] + series.groups["patch"] == "XL1"]
    assert line.points[-1].x == pytest.approx(cost["training_gmacs"])


def test_lines_of_many_points_end_where_they_end(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", "S/4")
    steps = range(7, 7 * 191, 7)
    rows = [{"step": step, "loss": 1 / step, "images_per_s": 1.0} for step in steps]
    write_lines(folder / "train.jsonl", rows)
    drawn = charts.loss(of(tmp_path))
    assert drawn
    (line,) = drawn.series
    assert 10 < len(line.points) <= 25
    assert line.points[-1].x >= steps[-1] > line.points[-2].x


def test_seeds_are_shown_around_their_mean(digits: Study) -> None:
    drawn = charts.seeds(digits, "fid")
    assert drawn
    for series in drawn.series:
        assert len(series.points) == 3
        assert sum(point.y for point in series.points) == pytest.approx(0, abs=1e-9)


def test_runs_of_different_data_share_no_chart(tmp_path: Path) -> None:
    for label, data in (("S/4", "digits"), ("B/4", "others")):
        config = write_run(tmp_path / "runs", label) / "config.yaml"
        config.write_text(config.read_text().replace("name: digits", f"name: {data}"))
    found, undrawn = pictures(of(tmp_path), None)
    assert not found.first
    assert any("the runs differ in data (digits, others)" in line for line in undrawn)


def test_models_of_unequal_steps_are_shown_at_their_own_last(tmp_path: Path) -> None:
    study = Study.of(isoflop_study(tmp_path).tables)
    rows, said = study.at_last("fid")
    assert said == "each at its last scored step"
    assert set(rows["label"]) == {"S/2", "B/2", "L/2", "XL/2"}


@pytest.mark.parametrize(
    ("without", "metric", "title"),
    [
        (("fid", "fid_percent"), "kid", "KID"),
        (("fid", "fid_percent", "kid", "kid_std"), "inception_score", "Inception Score"),
    ],
)
def test_a_study_without_a_frechet_distance_is_asked_about_another_score(
    tmp_path: Path, without: tuple[str, ...], metric: str, title: str
) -> None:
    for label in ("S/4", "B/4", "B/2"):
        folder = write_run(tmp_path / "runs", label)
        rows = [evaluated(label, step) for step in (500, 2000)]
        kept = [{name: value for name, value in row.items() if name not in without} for row in rows]
        write_lines(folder / "evals.jsonl", kept)
    study = of(tmp_path)
    found, _ = pictures(study, None)
    assert study.metric == metric
    assert found.first[0].title == f"{title} against compute"
    (best,) = [curve for curve in found.first[1].curves if curve.kind == "frontier"]
    assert list(best.y) == sorted(best.y, reverse=study.lower_is_better(metric))


def test_a_score_that_is_not_a_number_costs_its_point_only(tmp_path: Path) -> None:
    for label in ("S/4", "B/4"):
        folder = write_run(tmp_path / "runs", label)
    lines = (folder / "evals.jsonl").read_text()
    (folder / "evals.jsonl").write_text(re.sub(r'"fid": [\d.]+', '"fid": NaN', lines))
    found, undrawn = pictures(of(tmp_path), None)
    assert [series.label for series in found.first[0].series] == ["S/4"]
    assert any("fid of B/4" in line for line in undrawn)


# In the page


def drawn_page(tables: Tables) -> Element:
    found, _ = pictures(Study.of(tables), None)
    return section("figures", {"charts": found.more, "drawn": found.drawn})


@pytest.mark.slow
def test_the_page_has_every_point_with_its_name_and_groups() -> None:
    figure = by_id(parsed(digits_html()), "chart-fid-compute")
    series = [group for group in figure.all("g") if group.attributes.get("class", "").startswith("series")]
    assert {(group.attributes["data-size"], group.attributes["data-patch"]) for group in series} == {
        (size, patch) for size in ("S", "B", "L", "XL") for patch in ("4", "2", "1")
    }
    points = [group for group in figure.all("g") if group.attributes.get("class") == "point"]
    assert len(points) == 12
    for point in points:
        assert point.attributes["role"] == "img"
        assert point.attributes["tabindex"] == "0"
        assert re.match(r"(S|B|L|XL)/[124]\n[\d.]+ MMACs\nFréchet distance [\d.]+ \(", point.all("title")[0].text)


@pytest.mark.slow
def test_every_figure_of_the_catalogue_is_shown_or_said_to_be_missing(tmp_path: Path) -> None:
    studies = {
        "sampling": sampling_study(tmp_path / "sampling"),
        "blocks": block_study(tmp_path / "blocks"),
        "isoflop": isoflop_study(tmp_path / "isoflop"),
    }
    drawn = {}
    for name, source in studies.items():
        found, undrawn = pictures(Study.of(source.tables), None)
        drawn[name] = {figure.name for figure in found.drawn}
        for other in set(CATALOGUE) - SHOWN - drawn[name]:
            assert any(CATALOGUE[other].shows in line for line in undrawn)
    assert drawn == {
        "sampling": {"sampling-compute", "guidance", "decoders"},
        "blocks": {"blocks"},
        "isoflop": {"isoflop"},
    }


@pytest.mark.slow
def test_pictures_are_svg_of_the_pages_colours_and_their_numbers_stand_below(tmp_path: Path) -> None:
    tables = sampling_study(tmp_path).tables
    page = drawn_page(tables)
    ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    names = {"sampling-compute", "guidance", "decoders"}
    for name in names:
        figure = by_id(page, f"figure-{name}")
        (svg,) = figure.all("svg")
        assert not svg.all("style", "metadata", "image", "script")
        assert "S/4" in svg.text or "patch 4" in svg.text  # text, not outlines
        (image,) = [element for element in figure.all("div") if element.attributes.get("role") == "img"]
        assert "seeds" in image.attributes["aria-label"]
        for element in svg.all("use"):
            assert element.attributes["href"].removeprefix("#") in ids
        text = str(figure.all("svg")[0].all())
        assert "#000000" not in text
        assert "#ffffff" not in text
        assert by_id(page, f"table-{name}").all("tr")
    fid = np.mean([fid_of("B/2", 2000, seed) for seed in (0, 1)])
    cells = by_id(page, "table-guidance").all("td")
    numbers = [float(value) for cell in cells if (value := cell.attributes.get("data-value"))]
    assert np.isclose(numbers, fid).any()


@pytest.mark.slow
def test_the_page_is_small_enough_to_send() -> None:
    assert len(digits_html().encode()) < 1e6
