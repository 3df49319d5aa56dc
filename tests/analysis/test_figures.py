from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from run_folders import LABELS, STEPS, collect, evaluation, fid_of, gmacs_of, write_lines, write_run

from analysis.figures import draw, draw_all, gflops_vs_score, sample_grid, training_curves
from analysis.figures.sources import measured as measured_source
from analysis.laws.power_law import log_linear
from analysis.results.tables import ResultsError

FILES = [
    *(f"gflops_vs_fid.{kind}" for kind in ("png", "pdf", "csv", "txt", "tex")),
    *(f"fid_vs_steps.{kind}" for kind in ("png", "pdf", "csv", "txt", "tex")),
    *(f"sample_grid.{kind}" for kind in ("png", "pdf", "npz", "txt", "tex")),
]


def collected(folder, labels, seeds=(0,), channels=1):
    for seed in seeds:
        for label in labels:
            write_run(folder / "digits", label, seed, channels=channels)
    return collect(folder / "digits", folder / "results")


def measured(folder):
    data = pd.read_csv(folder / "gflops_vs_fid.csv")
    return data[data["panel"] == "measured"]


@pytest.mark.parametrize(
    ("labels", "seeds", "channels"),
    [
        pytest.param(["S/4"], (0,), 3, id="1 model"),
        pytest.param(["S/4", "S/2", "B/4", "B/1"], (0,), 1, id="4 models", marks=pytest.mark.slow),
        pytest.param(LABELS, (0, 1, 2), 1, id="12 models, 3 seeds", marks=pytest.mark.slow),
    ],
)
def test_all_figures_are_drawn(tmp_path, labels, seeds, channels):
    files = draw_all(collected(tmp_path, labels, seeds, channels), tmp_path / "figures")
    assert [path.name for path in files] == FILES
    for path in files:
        assert path.stat().st_size > 0
        if path.suffix == ".png":
            picture = imread(path)[..., :3]
            ink = np.mean(picture.min(axis=-1) < 0.9)
            assert 0.005 < ink < 0.9, path.name


@pytest.mark.slow
def test_the_same_tables_give_the_same_bytes(tmp_path):
    tables = collected(tmp_path, ["S/4", "S/2", "B/4", "B/1"], (0, 1))
    first, second = draw_all(tables, tmp_path / "first"), draw_all(tables, tmp_path / "second")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_compute_data_are_means_and_ranges_at_the_last_step(tmp_path):
    gflops_vs_score(collected(tmp_path, ["S/4", "B/2", "XL/1"], (0, 1, 2)), tmp_path)
    data = measured(tmp_path).set_index("label")
    assert data.index.tolist() == ["S/4", "B/2", "XL/1"]
    for label, row in data.to_dict("index").items():
        scores = [fid_of(str(label), 2000, seed) for seed in range(3)]
        assert row["fid"] == pytest.approx(np.mean(scores), rel=1e-12)
        assert (row["fid_min"], row["fid_max"]) == (min(scores), max(scores))
        assert (row["gmacs"], row["num_seeds"]) == (gmacs_of(str(label)), 3)
    line = log_linear(data["gmacs"], data["fid"])(data["gmacs"])
    assert data["line"].to_numpy() == pytest.approx(line)


def test_the_papers_models_stand_beside(tmp_path):
    gflops_vs_score(collected(tmp_path, ["S/4"]), tmp_path)
    data = pd.read_csv(tmp_path / "gflops_vs_fid.csv")
    paper = data[data["panel"] == "published"].set_index("label")
    assert len(paper) == 12
    assert paper.loc["XL/2", ["gmacs", "fid"]].tolist() == [118.64, 19.47]


def test_fewer_than_three_models_get_no_line(tmp_path):
    gflops_vs_score(collected(tmp_path, ["S/4", "S/2"]), tmp_path)
    assert np.isnan(measured(tmp_path)["line"].tolist()).all()


def test_an_unfinished_run_does_not_hide_the_others(tmp_path):
    write_run(tmp_path / "digits", "XL/1", steps=STEPS[:1])
    gflops_vs_score(collected(tmp_path, ["S/4", "S/2", "B/4"]), tmp_path)
    assert sorted(measured(tmp_path)["label"]) == ["B/4", "S/2", "S/4"]


def test_curve_data_are_the_scores_over_training(tmp_path):
    training_curves(collected(tmp_path, ["S/4", "B/2"]), tmp_path)
    data = pd.read_csv(tmp_path / "fid_vs_steps.csv")
    expected = [(label, step, fid_of(label, step)) for label in ("S/4", "B/2") for step in STEPS]
    assert list(data[["label", "step", "fid"]].itertuples(index=False, name=None)) == expected


def test_the_grid_holds_the_samples_of_the_smallest_seed_over_training_and_real_ones(tmp_path):
    tables = collected(tmp_path, ["S/4", "B/2"], (1, 2))
    sample_grid(tables, tmp_path)
    with np.load(tmp_path / "sample_grid.npz") as cells:
        steps = [f"{label}@{step}" for label in ("B/2", "S/4") for step in STEPS]
        assert sorted(cells) == sorted(["B/2", "S/4", "real", *steps])
        assert np.array_equal(cells["S/4"], tables.samples["s41"])
        assert np.array_equal(cells["B/2@2000"], tables.samples["b21"])
        assert np.array_equal(cells["B/2@500"], np.load(next(tmp_path.glob("digits/*b21/samples/500.npy")))[:10])
        assert np.array_equal(cells["real"], tables.real["digits"][0])


@pytest.mark.parametrize("width", ["one", "two"])
def test_a_pixel_of_a_sample_is_a_square_of_whole_pixels(tmp_path, width):
    """In the picture as written: each of the 64 pixels of a sample is k x k pixels of one colour."""
    tables = collected(tmp_path, ["S/4"])
    draw("sample-grid", [measured_source(tables)], tmp_path, width)
    picture = np.rint(255 * imread(tmp_path / "sample_grid.png")[..., 0]).astype(np.uint8)
    for image in (tables.samples["s40"][3], tables.real["digits"][0][4], tables.earlier_samples["s40"][500][9]):
        wanted = [np.kron(image[0], np.ones((k, k), np.uint8)) for k in range(2, 12)]
        assert any(contains(picture, each) for each in wanted)


def contains(picture, block):
    windows = np.lib.stride_tricks.sliding_window_view(picture, block.shape)
    starts = np.argwhere(np.all(windows[:, :, [0, -1], :][..., [0, -1]] == block[[0, -1]][:, [0, -1]], axis=(2, 3)))
    return any(np.array_equal(windows[row, column], block) for row, column in starts)


def test_old_tables_have_the_last_samples_alone(tmp_path):
    tables = replace(collected(tmp_path, ["S/4", "B/2"]), earlier_samples={}, real={})
    sample_grid(tables, tmp_path)
    with np.load(tmp_path / "sample_grid.npz") as cells:
        assert sorted(cells) == ["B/2", "S/4"]


def test_the_grid_needs_samples(tmp_path):
    with pytest.raises(ResultsError, match="no samples to draw"):
        sample_grid(replace(collected(tmp_path, ["S/4"]), samples={}), tmp_path)


def test_scores_that_are_not_comparable_are_not_drawn(tmp_path):
    write_run(tmp_path / "digits", "S/4")
    folder = write_run(tmp_path / "digits", "S/2")
    write_lines(folder / "evals.jsonl", [evaluation("S/2", step, sampling_steps=50) for step in STEPS])
    tables = collect(tmp_path / "digits", tmp_path / "results")
    for drawing in (gflops_vs_score, training_curves, sample_grid):
        with pytest.raises(ResultsError, match="differ in sampling_steps: 250, 50"):
            drawing(tables, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_block_designs_share_a_panel_under_names_of_their_own(tmp_path):
    tables = collected(tmp_path, ["S/4", "S/2"])
    blocks: dict[str, str] = dict(zip(tables.runs["run"], ["adaln", "adaln-zero"], strict=True))
    runs, evals = (table.assign(block=[blocks[run] for run in table["run"]]) for table in (tables.runs, tables.evals))
    gflops_vs_score(replace(tables, runs=runs, evals=evals), tmp_path)
    data = measured(tmp_path)
    assert data["source"].tolist() == ["measured, adaln", "measured, adaln-zero"]
    assert data["label"].tolist() == ["S/4", "S/2"]


def test_nothing_is_drawn_without_a_score(tmp_path):
    folder = write_run(tmp_path / "digits", "S/4")
    (folder / "evals.jsonl").unlink()
    with pytest.raises(ResultsError, match="nothing to draw"):
        draw_all(collect(tmp_path / "digits", tmp_path / "results"), tmp_path)
