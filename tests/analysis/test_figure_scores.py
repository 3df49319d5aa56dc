"""What figures call a score: the same everywhere, and a FID only what is one."""

from dataclasses import replace

import pytest
from run_folders import collect, write_run

from analysis.figures.scores import Scores, axis_name, scaling_scores
from analysis.figures.sources import measured, published_source


@pytest.fixture(scope="module")
def scores(tmp_path_factory) -> Scores:
    folder = tmp_path_factory.mktemp("study")
    write_run(folder / "runs", "S/4")
    return scaling_scores(measured(collect(folder / "runs", folder / "results")))


def scored(scores: Scores, **key) -> Scores:
    return replace(scores, evals=scores.evals.assign(**key))


@pytest.mark.parametrize(
    ("extractor", "num_samples", "expected"),
    [
        ("inception-v3-compat-6726825d", 50_000, "FID-50K ↓"),
        ("inception-v3-compat-6726825d", 10_000, "FID-10K ↓"),
        ("inception-v3-compat-6726825d", 250, "FID ↓"),
        ("digits-cnn-fb4b5713", 50_000, "Fréchet distance (digits-cnn) ↓"),
        ("dinov2-vit-l14-0123abcd", 50_000, "Fréchet distance (dinov2-vit-l14) ↓"),
        ("my.own.package:Network-0123abcd", 1000, "Fréchet distance (Network) ↓"),
        ("x" * 80, 1000, f"Fréchet distance ({'x' * 23}…) ↓"),
    ],
)
def test_a_fid_is_of_inception_features_and_so_many_samples(scores, extractor, num_samples, expected):
    assert axis_name([scored(scores, extractor=extractor, num_samples=num_samples)]) == expected


def test_the_papers_scores_and_ours_of_the_same_key_have_one_name(scores):
    paper = scaling_scores(published_source())
    ours = scored(scores, extractor="inception-v3-compat-6726825d", num_samples=50_000)
    assert axis_name([paper]) == axis_name([paper, ours]) == axis_name([ours]) == "FID-50K ↓"


def test_what_differs_within_a_panel_is_not_in_its_name(scores):
    ours = scored(scores, extractor="inception-v3-compat-6726825d", num_samples=10_000)
    assert axis_name([ours, scored(ours, num_samples=50_000)]) == "FID ↓"
    assert axis_name([ours, scores]) == "Fréchet distance ↓"


def test_other_metrics_keep_their_names_and_own_ones_their_titles(scores):
    assert [axis_name([scores], name) for name in ("sfid", "precision")] == ["sFID ↓", "Precision ↑"]
    described = '{"coverage": {"title": "Coverage", "lower_is_better": false}}'
    tables = replace(scores.source.tables, runs=scores.runs.assign(metrics=described))
    own = replace(scores, source=replace(scores.source, tables=tables))
    assert axis_name([own], "coverage") == "Coverage ↑"
