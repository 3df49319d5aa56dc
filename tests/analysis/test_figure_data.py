"""What each figure shows: the data beside it against the paper's and made-up numbers, its scales and its points."""

from dataclasses import replace
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawn_figures import (
    BUDGETS,
    DECODERS,
    DESIGNS,
    SAMPLING_STEPS,
    SCALES,
    block_study,
    isoflop_study,
    sampling_study,
    seen,
    study,
)
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.legend import Legend
from run_folders import LABELS, STEPS, fid_of, gmacs_of

from analysis import figures
from analysis.advice.curves import measured_curves
from analysis.drawing import style
from analysis.drawing.frontier import frontier
from analysis.figures import bubbles
from analysis.figures.fitted_law import power_law_band
from analysis.figures.isoflop import budgets, parabola
from analysis.figures.loss import smoothed
from analysis.figures.sources import Source, measured, published_source
from analysis.laws.compute import FLOPS_PER_GMAC
from analysis.laws.observed import collected_observations
from analysis.laws.power_law import power_law
from analysis.results.csv_text import csv_text
from analysis.results.tables import load, published

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def scaling(tmp_path_factory) -> Source:
    return study(tmp_path_factory.mktemp("scaling"), seeds=(0, 1, 2))


@pytest.fixture(scope="module")
def sampling(tmp_path_factory) -> Source:
    return sampling_study(tmp_path_factory.mktemp("sampling"))


def drawn_data(name, source, stem=None) -> Any:
    """The figure as it is laid out, and what the table beside it says."""
    picture = figures.picture(name, [source])
    with style.look():
        style.lay_out(picture.figure)
    assert picture.name == (stem or name.replace("-", "_"))
    assert isinstance(picture.data, pd.DataFrame)
    return picture.figure, pd.read_csv(StringIO(csv_text(picture.data)))


def table_4():
    return published("dit_table4").query("image_size == 256 and block == 'adaln-zero' and train_steps_k == 400")


def markers(axes):
    """The places of the single markers in a panel."""
    return {(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if len(line.get_xdata()) == 1}


@pytest.mark.parametrize(
    ("name", "stem"), [("gflops-vs-fid", "gflops_vs_fid"), ("residuals", None), ("fitted-law", None), ("bubbles", None)]
)
def test_the_papers_models_are_its_table_4(name, stem):
    _, data = drawn_data(name, published_source(), stem)
    data = data[data["panel"] == "published"] if "panel" in data else data
    expected = dict(zip(table_4()["model"], zip(table_4()["gmacs"], table_4()["fid50k"], strict=True), strict=True))
    assert {f"DiT-{row['label']}": (row["gmacs"], row["fid"]) for _, row in data.iterrows()} == expected


def test_compute_has_a_logarithmic_axis_and_all_twelve_points():
    figure, data = drawn_data("gflops-vs-fid", published_source())
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert markers(axes) == set(zip(data["gmacs"], data["fid"], strict=True))
    assert axes.get_xlim()[0] < 0.36 and axes.get_xlim()[1] > 118.64
    assert "r = −0.930, 12 models" in [text.get_text() for text in axes.texts]
    assert {text.get_text() for text in axes.texts} > set(data["label"])
    assert axes.get_xlabel() == "GMACs (one forward pass of one image)"
    assert axes.get_ylabel() == "FID-50K ↓"


def test_measured_and_published_scores_never_share_axes(tmp_path, scaling):
    with seen() as drawn:
        figures.draw("gflops-vs-fid", [scaling, published_source()], tmp_path)
    left, right = drawn[0].axes
    assert " ".join(left.get_title().split()) == "Measured: results, 2K steps"
    assert " ".join(right.get_title().split()) == "Published: ImageNet 256 x 256, 400K steps"
    assert left.get_xlabel().startswith("MMACs")


def test_two_studies_of_one_kind_overlay_with_different_fills(tmp_path, scaling):
    other = Source("again", scaling.tables)
    with seen() as drawn:
        figures.draw("gflops-vs-fid", [scaling, other], tmp_path)
    (axes,) = drawn[0].axes
    fills = [line.get_fillstyle() for line in axes.lines if len(line.get_xdata()) == 1]
    assert (fills.count("full"), fills.count("none")) == (12, 12)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["results", "again"]
    assert pd.read_csv(tmp_path / "gflops_vs_fid.csv")["source"].value_counts().to_dict() == {
        "results": 12,
        "again": 12,
    }


def legend_texts(figure):
    return [text.get_text() for legend in figure.findobj(Legend) for text in legend.get_texts()]


def test_bubbles_have_areas_in_proportion_to_gmacs_as_far_as_they_can_be_seen():
    figure, data = drawn_data("bubbles", published_source())
    for axes, (_, points) in zip(figure.axes, data.groupby("panel", sort=False), strict=True):
        areas = np.array([bubble.get_sizes()[0] for bubble in axes.collections])
        expected = max(areas) * (points["gmacs"] / max(points["gmacs"])).to_numpy()
        small = expected < bubbles.SMALLEST
        assert areas[~small] == pytest.approx(expected[~small]) and not small.all()
        assert set(areas[small]) <= {bubbles.SMALLEST}


def test_dit_stands_against_the_papers_unets():
    _, data = drawn_data("bubbles", published_source())
    rows: Any = data[data["panel"] == "baselines"].set_index("label")
    assert rows[["family", "guided", "gmacs", "fid"]].to_dict("index") == {
        "ADM": {"family": "ADM", "guided": False, "gmacs": 1120, "fid": 10.94},
        "ADM-U": {"family": "ADM", "guided": False, "gmacs": 742, "fid": 7.49},
        "ADM-G": {"family": "ADM", "guided": True, "gmacs": 1120, "fid": 4.59},
        "ADM-G, ADM-U": {"family": "ADM", "guided": True, "gmacs": 742, "fid": 3.94},
        "LDM-8": {"family": "LDM", "guided": False, "gmacs": 57, "fid": 15.51},
        "LDM-8-G": {"family": "LDM", "guided": True, "gmacs": 57, "fid": 7.76},
        "LDM-4": {"family": "LDM", "guided": False, "gmacs": 103.6, "fid": 10.56},
        "LDM-4-G": {"family": "LDM", "guided": True, "gmacs": 103.6, "fid": 3.6},
        "DiT-XL/2": {"family": "DiT", "guided": False, "gmacs": 118.64, "fid": 9.62},
        "DiT-XL/2-G": {"family": "DiT", "guided": True, "gmacs": 118.64, "fid": 2.27},
    }


def test_the_papers_block_designs_stand_at_400k_and_say_so():
    figure, data = drawn_data("blocks", published_source())
    assert data.set_index("block")["fid"].to_dict() == {
        "in-context": 35.24,
        "cross-attention": 26.14,
        "adaln": 25.21,
        "adaln-zero": 19.47,
    }
    assert data["step"].unique().tolist() == [400_000]
    left, right = figure.axes
    assert {text.get_text() for text in left.texts} == {"35.24", "26.14", "25.21", "19.47"}
    assert {text.get_text() for text in right.texts} == {"119.37", "137.62", "118.56", "118.64"}
    assert "at 400K steps" in figures.picture("blocks", [published_source()]).caption


def test_block_designs_are_lines_over_training(tmp_path):
    figure, data = drawn_data("blocks", block_study(tmp_path / "study"))
    (axes,) = figure.axes
    assert [text.partition(" ")[0] for text in legend_texts(figure)] == list(DESIGNS)
    marks = {(line.get_marker(), line.get_linestyle()) for line in axes.lines}
    assert len(marks) == len(axes.lines) == 3
    rows = data.set_index(["block", "step"])
    for worse, design in enumerate(reversed(DESIGNS)):
        for step in STEPS:
            mean = np.mean([fid_of("XL/1", step, seed) + worse for seed in (0, 1)])
            assert rows.loc[(design, step), "fid"] == pytest.approx(mean, rel=1e-12)


def test_training_compute_is_three_forward_passes_of_every_image():
    figure, data = drawn_data("training-compute", published_source())
    assert len(data) == 14
    assert data["training_gmacs"].to_numpy() == pytest.approx(data["gmacs"] * 3 * 256 * data["step"], rel=1e-12)
    best: Any = data[data["on_frontier"]]
    best = best.sort_values("training_gmacs")
    assert best["label"].tolist() == ["S/8", "S/4", "B/4", "L/4", "B/2", "XL/4", "L/2", "XL/2", "XL/2", "XL/2"]
    assert best["fid"].is_monotonic_decreasing
    assert figure.axes[0].get_xscale() == "log"


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=12, unique=True))
def test_nothing_beats_the_frontier_and_it_beats_everything(points):
    compute, score = zip(*points, strict=True)
    chosen = [point for point, best in zip(points, frontier(compute, score), strict=True) if best]
    for x, y in points:
        assert any(fx <= x and fy <= y for fx, fy in chosen)
    for x, y in chosen:
        assert not any(px <= x and py <= y for px, py in points if (px, py) != (x, y))


def test_sampling_compute_is_a_network_call_a_step(sampling):
    figure, data = drawn_data("sampling-compute", sampling)
    rows = data.set_index(["label", "sampling_steps"])
    assert len(rows) == 3 * (len(SAMPLING_STEPS) + 1)  # and the recipe's 250
    for label in ("S/4", "B/2", "XL/1"):
        for steps in SAMPLING_STEPS:
            row = rows.loc[(label, steps)]
            mean = np.mean([fid_of(label, 2000, seed) * (1 + 20 / steps) for seed in (0, 1)])
            assert row["fid"] == pytest.approx(mean, rel=1e-12)
            assert row["sampling_gmacs"] == pytest.approx(gmacs_of(label) * steps, rel=1e-12)
            assert row["all_samples_gmacs"] == pytest.approx(gmacs_of(label) * steps * 1000, rel=1e-12)
    assert figure.axes[0].get_xscale() == "log"


def test_seeds_that_were_sampled_once_are_not_in_the_mean(sampling):
    """The recipe's own samples are there of both seeds; if other steps are of seed 0 alone, so is the whole line."""
    other = sampling.tables.other_evals
    one = replace(sampling, tables=replace(sampling.tables, other_evals=other.loc[other["seed"] == 0]))
    _, data = drawn_data("sampling-compute", one)
    assert set(data["num_seeds"]) == {1}
    own = data.set_index(["label", "sampling_steps"]).loc[("S/4", 250)]
    assert own["fid"] == pytest.approx(fid_of("S/4", 2000, 0), rel=1e-12)


def test_guidance_doubles_the_sampling_compute(sampling):
    other = sampling.tables.other_evals.assign(guidance_scale=1.5, guidance_channels=3)
    other = other.loc[other["sampling_steps"] != 250]
    guided = replace(sampling, tables=replace(sampling.tables, other_evals=other))
    _, data = drawn_data("sampling-compute", guided)
    assert data["sampling_gmacs"].to_numpy() == pytest.approx(2 * data["gmacs"] * data["sampling_steps"], rel=1e-12)


def test_the_papers_guidance_is_its_tables_2_and_3():
    figure, data = drawn_data("guidance", published_source())
    columns = ["data", "guidance_scale", "fid", "inception_score", "precision", "recall"]
    assert data[columns].to_numpy().tolist() == [
        ["imagenet-256-latents", 1.0, 9.62, 121.5, 0.67, 0.67],
        ["imagenet-256-latents", 1.25, 3.22, 201.77, 0.76, 0.62],
        ["imagenet-256-latents", 1.5, 2.27, 278.24, 0.83, 0.57],
        ["imagenet-512-latents", 1.0, 12.03, 105.25, 0.75, 0.64],
        ["imagenet-512-latents", 1.25, 4.64, 174.77, 0.81, 0.57],
        ["imagenet-512-latents", 1.5, 3.04, 240.82, 0.84, 0.54],
    ]
    assert len(figure.axes) == 8


def test_ways_of_guidance_are_lines_of_their_own_from_the_same_start(sampling):
    tables = sampling.tables
    other = tables.other_evals.loc[tables.other_evals["label"] == "S/4"]
    guided = other.loc[other["guidance_scale"] != 1]
    ways = [guided.assign(guidance_channels=4, fid=guided["fid"] + 1), guided.assign(guidance_interval="200 to 800")]
    ways.append(guided.assign(guide="step 500"))
    of_one = replace(
        tables, evals=tables.evals.loc[tables.evals["label"] == "S/4"], other_evals=pd.concat([other, *ways])
    )
    _, data = drawn_data("guidance", replace(sampling, tables=of_one))
    rows = data.set_index(["guided", "guidance_scale"])["fid"]
    assert len(rows) == 4 * (len(SCALES) + 1)
    mean = np.mean([fid_of("S/4", 2000, seed) for seed in (0, 1)])
    for way in ("on 3 channels", "on 4 channels", "on 3 channels at times 200 to 800", "on 3 channels by step 500"):
        assert rows[way, 1.0] == pytest.approx(mean, rel=1e-12)
        assert rows[way, SCALES[0]] == pytest.approx(mean / SCALES[0] + (way == "on 4 channels"), rel=1e-12)


def test_decoders_are_the_papers_table_5():
    _, data = drawn_data("decoders", published_source())
    table = published("dit_table5_decoder")
    metrics = ["fid", "sfid", "inception_score", "precision", "recall"]
    assert [name.rpartition("sd-vae-")[2] for name in data["decoder"]] == table["decoder"].tolist()
    assert data[metrics].to_numpy().tolist() == table[metrics].to_numpy().tolist()


def test_own_decoders_are_compared_model_by_model(sampling):
    _, data = drawn_data("decoders", sampling)
    fid = data.set_index(["label", "decoder"])["fid"]
    for label in ("S/4", "B/2", "XL/1"):
        for name in DECODERS:
            mean = np.mean([fid_of(label, 2000, seed) + len(name) for seed in (0, 1)])
            assert fid[label, name] == pytest.approx(mean, rel=1e-12)


def test_metrics_are_means_over_seeds_at_the_last_step(scaling):
    figure, data = drawn_data("metrics", scaling)
    assert data["metric"].unique().tolist() == ["fid", "kid", "inception_score", "precision", "recall"]
    assert data["metric"].value_counts().unique().tolist() == [12]
    rows = data.set_index(["metric", "label"])
    for label in LABELS:
        scores = [fid_of(label, 2000, seed) for seed in range(3)]
        assert rows.loc[("fid", label), "mean"] == pytest.approx(np.mean(scores), rel=1e-12)
        inception = [1 + 200 / score for score in scores]
        assert rows.loc[("inception_score", label), ["min", "max"]].tolist() == pytest.approx(
            [min(inception), max(inception)], rel=1e-12
        )
    *panels, legend = figure.axes  # which stands where a sixth panel would
    assert {axes.get_xscale() for axes in panels} == {"log"}
    assert len(panels) == 5 and not legend.axison and legend.get_legend() is not None


@pytest.mark.parametrize(("factor", "said"), [(1, "KID ↓"), (1e-2, "KID (× 10⁻³) ↓"), (1e5, "KID (× 10³) ↓")])
def test_the_axis_of_very_small_or_large_scores_names_their_power(scaling, factor, said):
    evals = scaling.tables.evals.assign(kid=scaling.tables.evals["fid"] * factor / 100)
    figure, _ = drawn_data("metrics", replace(scaling, tables=replace(scaling.tables, evals=evals)))
    (axes,) = [axes for axes in figure.axes if "KID" in axes.get_ylabel()]
    assert axes.get_ylabel().replace("\n", " ") == said
    with style.look():
        figure.draw_without_rendering()
    power = {1: 1, 1e-2: 1e-3, 1e5: 1e3}[factor]
    shown = {tick.label1.get_text(): tick.get_loc() for tick in axes.yaxis.get_major_ticks()}
    assert all(float(text.replace("−", "-")) * power == pytest.approx(at) for text, at in shown.items() if text)


def test_losses_are_drawn_as_logged(scaling):
    figure, data = drawn_data("loss", scaling, "training_loss")
    assert len(data) == 12 * 20
    assert data["loss"].to_numpy() == pytest.approx(1.1 / data["step"] ** 0.25, rel=1e-12)
    assert {axes.get_yscale() for axes in figure.axes} == {"log"}
    assert data["smoothed"].to_numpy() == pytest.approx(data["loss"].to_numpy(), rel=1e-9)  # a power law stays itself
    for axes in figure.axes:
        raw = [line for line in axes.lines if line.get_alpha()]
        assert len({line.get_linestyle() for line in axes.lines if line not in raw}) == len(raw) == 4


@given(st.lists(st.floats(0.5, 2), min_size=1, max_size=30))
def test_a_smoothed_loss_stays_near_what_was_logged(noise):
    steps = 25 * np.arange(1, len(noise) + 1)
    found = smoothed(pd.DataFrame({"step": steps, "loss": np.array(noise) * steps**-0.5}))
    assert np.isfinite(found).all() and (found > 0).all()
    early = steps <= 50  # alone on this scale: nothing to smooth with
    assert found[early] == pytest.approx((np.array(noise) * steps**-0.5)[early], rel=0.02)


def test_a_smoothed_loss_varies_less():
    noise = np.random.default_rng(0).normal(scale=0.1, size=200)
    steps = np.arange(10, 2010, 10)
    found = smoothed(pd.DataFrame({"step": steps, "loss": steps**-0.3 * np.exp(noise)}))
    assert np.std(np.log(found[20:] / steps[20:] ** -0.3)) < 0.35 * np.std(noise)


def test_long_logs_are_means_of_windows(scaling):
    first = scaling.tables.train.iloc[0]
    steps = np.arange(1, 1001)
    train = pd.DataFrame([first] * 1000).assign(step=steps, loss=steps.astype(float))
    _, data = drawn_data("loss", replace(scaling, tables=replace(scaling.tables, train=train)), "training_loss")
    assert data["step"].tolist() == list(range(5, 1001, 5))
    assert data["loss"].tolist() == list(range(3, 1001, 5))


def test_the_largest_model_is_predicted_from_the_others():
    figure, data = drawn_data("fitted-law", published_source())
    assert data.loc[data["held_out"], "label"].tolist() == ["XL/2"]
    models = table_4().sort_values("gmacs")
    law = power_law(models["gmacs"].iloc[:-1], models["fid50k"].iloc[:-1])
    assert data["line"].to_numpy() == pytest.approx(law(data["gmacs"]))
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    text = " ".join(legend_texts(figure))
    assert "XL/2 predicted: 26.5 (15.4 to 45.4)" in text and "XL/2 true: 19.5" in text


def test_scores_at_one_step_stand_side_by_side_and_only_curves_over_steps():
    """Of the paper's models only XL/2 has several steps: no other has a place on an axis of steps."""
    figure, data = drawn_data("fid-vs-steps", published_source(), "fid_vs_steps")
    assert len(data) == 14
    by_size, by_patch, over_steps = figure.axes
    at_400k = sorted(data.loc[data["step"] == 400_000, "fid"])
    assert sorted(y for _, y in markers(by_size)) == sorted(y for _, y in markers(by_patch)) == at_400k
    assert [text.get_text() for text in by_size.get_xticklabels()] == ["S", "B", "L", "XL"]
    assert [text.get_text() for text in by_patch.get_xticklabels()] == ["8", "4", "2"]
    (line,) = over_steps.lines
    assert line.get_xydata().tolist() == [[400_000, 19.47], [2_352_000, 10.67], [7_000_000, 9.62]]
    assert {axes.get_yscale() for axes in figure.axes} == {"log"}


def test_the_prediction_interval_is_that_of_linear_regression():
    """Five points by hand: log y = 0.5, -0.5, 0, -0.5, 0.5 at log x = -2 ... 2; s^2 = 1 / 3, t(3, 95 %) = 2.353363."""
    x, y = np.exp([-2.0, -1, 0, 1, 2]), np.exp([0.5, -0.5, 0, -0.5, 0.5])
    band = power_law_band(x, y, [np.exp(3.0)], level=0.9)
    half = 2.3533634348018264 * np.sqrt(1 / 3) * np.sqrt(1 + 1 / 5 + 9 / 10)
    assert np.log([band.line[0], band.low[0], band.high[0]]) == pytest.approx([0, -half, half])


def test_prediction_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(0)
    x = np.geomspace(0.4, 120, 12)
    inside = 0
    for _ in range(2000):
        y = 100 * x**-0.35 * np.exp(rng.normal(scale=0.2, size=12))
        band = power_law_band(x[:-1], y[:-1], x[-1:])
        inside += bool(band.low[0] <= y[-1] <= band.high[0])
    assert 0.88 < inside / 2000 < 0.92


def test_residuals_are_scores_over_the_law():
    figure, data = drawn_data("residuals", published_source())
    law = power_law(table_4()["gmacs"], table_4()["fid50k"])
    assert data["ratio"].to_numpy() == pytest.approx(data["fid"] / law(data["gmacs"]))
    assert np.log(data["ratio"]).sum() == pytest.approx(0, abs=1e-9)
    assert figure.axes[0].get_yscale() == "log"


def test_isoflop_curves_are_budgets_of_four_sizes(tmp_path):
    figure, data = drawn_data("isoflop", isoflop_study(tmp_path / "study"))
    assert data.groupby("budget")["label"].apply(sorted).tolist() == [["B/2", "L/2", "S/2", "XL/2"]] * 2
    for budget, expected in zip(sorted(data["budget"].unique()), BUDGETS, strict=True):
        assert budget == pytest.approx(3 * 64 * gmacs_of("S/2") * expected, rel=0.02)
    assert len(figure.axes[0].get_legend().get_texts()) == 2
    assert figure.axes[0].get_yscale() == "log"
    assert data["score"].to_numpy() == pytest.approx(data["fid"].to_numpy(), rel=1e-12)  # of one seed


def test_budgets_that_no_two_models_share_are_interpolated_where_three_reach_them(scaling):
    """By equal steps, models of one patch size have no compute in common; a law that all follow comes out itself."""
    steps = scaling.tables.evals["step"].map({500: 100, 1000: 1000, 1500: 10_000, 2000: 100_000}).astype("Int64")
    evals = scaling.tables.evals.assign(step=steps)
    evals["fid"] = 1e3 * evals["gmacs"] ** -0.2 * steps.astype(float) ** -0.5
    source = replace(scaling, tables=replace(scaling.tables, evals=evals))
    _, data = drawn_data("isoflop", source)
    between = data[data["fid"].isna()]
    assert set(data["patch"]) == {1, 2, 4} and len(between) > 20
    steps = between["budget"] / (between["gmacs"] * 3 * 64)
    assert between["score"].to_numpy() == pytest.approx(1e3 * between["gmacs"] ** -0.2 * steps**-0.5, rel=1e-9)


def test_isoflop_scores_are_what_advise_calls_measured():
    """Its other numbers are predictions by a law; and where the smallest is best, no minimum is drawn beside it."""
    tables = load(RESULTS / "digits-advice")
    figure, data = drawn_data("isoflop", measured(tables, "digits-advice"))
    curves = measured_curves(collected_observations(tables, all_steps=True))
    expected = [
        curves.score(label, FLOPS_PER_GMAC * spent)
        for label, spent in zip(data["label"], data["training_gmacs"], strict=True)
    ]
    assert data["score"].to_numpy() == pytest.approx(expected, rel=1e-9)
    assert data.loc[data["score"].idxmin(), "label"] == "S/1" == data.loc[data["params"].idxmin(), "label"]
    assert not [line for line in figure.axes[0].lines if line.get_marker() == "*"]


@pytest.mark.parametrize(("best", "marked"), [(0.5, False), (1.0, False), (3.0, True), (9.0, False), (20.0, False)])
def test_a_minimum_is_marked_only_where_the_data_bracket_it(best, marked):
    params = np.array([1.0, 2.0, 4.0, 8.0])
    fit = parabola(params, np.exp(np.log(params / best) ** 2))
    assert (fit.minimum is not None) == marked
    if fit.minimum is not None:
        assert fit.minimum == pytest.approx((best, 1.0))


def test_a_dip_of_the_curve_that_no_point_shows_is_no_minimum():
    """Of results/digits-advice, in raw scores: the smallest is the best, and the parabola has its minimum inside."""
    params, scores = [37_442, 140_546, 469_826, 686_882], [7.3, 19.2, 83.8, 140.3]
    raw = np.polyfit(np.log(params), scores, 2)
    assert np.log(params[0]) < -raw[1] / (2 * raw[0]) < np.log(params[1])
    fit = parabola(params, np.exp(scores))  # as if they were logs
    assert fit.minimum is None and not fit.agrees
    assert parabola(params, scores).agrees


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=20))
def test_budgets_differ_by_no_more_than_the_tolerance(compute):
    found = budgets(compute)
    for value, budget in zip(compute, found, strict=True):
        assert budget in compute and budget <= value <= 1.02 * budget
    starts = sorted(set(found))
    assert all(later > 1.02 * earlier for earlier, later in pairwise(starts))


def test_seeds_are_percentages_of_their_mean(scaling):
    figure, data = drawn_data("seeds", scaling)
    assert len(data) == 36
    for label, rows in data.groupby("label"):
        scores = np.array([fid_of(str(label), 2000, seed) for seed in range(3)])
        assert rows["percent"].to_numpy() == pytest.approx(100 * (scores / scores.mean() - 1))
        assert rows["std"].to_numpy() == pytest.approx(np.std(scores, ddof=1))
    order = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert order == data.sort_values("gmacs", kind="stable")["label"].drop_duplicates().tolist()
