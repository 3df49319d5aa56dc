"""What holds for every figure: bytes, fonts, sizes, marks that do without colour, refusals, speed of the import."""

import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawn_figures import Sources, seen, study
from matplotlib.axis import Tick
from matplotlib.image import imread
from matplotlib.text import Text
from run_folders import evaluation

from analysis import figures
from analysis.drawing import style
from analysis.drawing.write import DPI, write_picture
from analysis.figures import CATALOGUE, NothingToDraw
from analysis.figures.scores import Scores, side_by_side
from analysis.figures.sources import Source, measured, open_sources, published_source
from analysis.results.tables import ResultsError

PUBLISHED = [
    "bubbles",
    "families",
    "blocks",
    "fid-vs-steps",
    "gflops-vs-fid",
    "training-compute",
    "fitted-law",
    "residuals",
    "guidance",
    "decoders",
]


OF_LOSSES = ("loss", "transfer")  # which have no scores


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Sources:
    """For each figure a study with data for it."""
    return Sources(tmp_path_factory.mktemp("everything"))


@pytest.fixture
def scaling(everything) -> Source:
    """Twelve models, two seeds."""
    return everything["seeds"]


@pytest.mark.slow
def test_the_papers_tables_are_drawn_and_the_rest_is_said(tmp_path):
    drawn = figures.draw_available([published_source()], tmp_path)
    reasons = {name: line for line in drawn.left_out for name in line.split(": not drawn: ")[0].split(", ")}
    assert sorted([*reasons, *PUBLISHED]) == sorted(CATALOGUE)
    assert all("needed: " in reason for reason in reasons.values())
    assert len(drawn.files) == 5 * len(PUBLISHED)
    assert all(path.stat().st_size > 0 for path in drawn.files)


@pytest.mark.slow
def test_all_figures_are_those_that_are_drawn_one_by_one(tmp_path, scaling):
    """To the byte, though `all` has several processes draw them."""
    figures.draw_available([scaling], tmp_path)
    for name in CATALOGUE:
        with suppress(NothingToDraw):
            figures.draw(name, [scaling], tmp_path / "alone")
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert len(names) > 20
    assert names == {path.name for path in (tmp_path / "alone").iterdir()}
    assert all((tmp_path / name).read_bytes() == (tmp_path / "alone" / name).read_bytes() for name in names)


@pytest.fixture(scope="module")
def drawings(tmp_path_factory, everything) -> dict[tuple[str, str], tuple[Any, list[Path]]]:
    """Every figure in both widths, as it was written, and its files."""
    found = {}
    for name in CATALOGUE:
        for width in ("one", "two"):
            with seen() as drawn:
                files = figures.draw(name, [everything[name]], tmp_path_factory.mktemp(f"{name}-{width}"), width).files
            found[name, width] = (drawn[0], files)
    return found


def texts_of(figure: Any) -> list[Any]:
    """All texts but the ticks', some of which are outside of the view and not drawn."""
    ticks = {id(text) for tick in figure.findobj(Tick) for text in (tick.label1, tick.label2)}
    return [text for text in figure.findobj(Text) if text.get_text().strip() and id(text) not in ticks]


@pytest.mark.slow
@pytest.mark.parametrize("width", ["one", "two"])
@pytest.mark.parametrize("name", CATALOGUE)
def test_every_figure_has_its_width_and_readable_embedded_fonts(drawings, name, width):
    figure, files = drawings[name, width]
    assert figure.get_figwidth() == {"one": 3.25, "two": 6.75}[width]
    assert [path.suffix for path in files[:2]] == [".png", ".pdf"]
    assert files[2].suffix in (".csv", ".npz")
    pdf = files[1].read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf
    sizes = [text.get_fontsize() for text in texts_of(figure)]
    assert min(sizes) >= 7 and max(sizes) <= 9
    picture = imread(files[0])[..., :3]
    assert picture.shape[1] == DPI * figure.get_figwidth()
    assert 0.005 < np.mean(picture.min(axis=-1) < 0.9) < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", CATALOGUE)
def test_the_conditions_stand_in_the_caption(drawings, name):
    files = {path.suffix: path for path in drawings[name, "two"][1]}
    text, tex = files[".txt"].read_text(), files[".tex"].read_text()
    varied = {"network-calls": "ddpm sampler", "averages": "ema weights"}.get(name)  # which the figure itself shows
    conditions = {"ema weights", "ddpm sampler", "reference", "samples with"} - {varied}
    for said in ("batch", "seed") if name in OF_LOSSES else conditions:
        assert said in text and said in tex
    assert f"{{{files['.pdf'].name}}}" in tex


def test_hashes_are_beside_the_picture_and_never_in_it(tmp_path, scaling):
    evals = scaling.tables.evals.assign(reference="digits-1797-b41ca9fd", decoder="vae@0123abcd")
    picture = figures.picture("seeds", [replace(scaling, tables=replace(scaling.tables, evals=evals))])
    write_picture(picture, tmp_path)
    assert "reference digits-1797-b41ca9fd, extractor digits-mlp, decoder vae@0123abcd" in picture.keys
    assert picture.keys in (tmp_path / "seeds.txt").read_text()
    shown = picture.short + picture.caption + (tmp_path / "seeds.tex").read_text()
    assert "reference digits-1797," in shown and "decoder vae," in shown
    assert "b41ca9fd" not in shown and "0123abcd" not in shown


@pytest.mark.slow
@pytest.mark.parametrize("width", ["one", "two"])
@pytest.mark.parametrize("name", CATALOGUE)
def test_no_text_leaves_the_picture(drawings, name, width):
    figure, _ = drawings[name, width]
    with style.look():  # ticks are made anew
        figure.draw_without_rendering()
    for text, box in {text.get_text(): text.get_window_extent() for text in texts_of(figure)}.items():
        assert box.x0 >= -2 and box.x1 <= figure.bbox.x1 + 2, text
        assert box.y0 >= -2 and box.y1 <= figure.bbox.y1 + 2, text


def test_a_caption_makes_the_picture_higher_and_leaves_the_panels_as_they_are(tmp_path, scaling):
    picture = figures.picture("seeds", [scaling])
    read = {}
    for caption in ("none", "short", "full"):
        write_picture(picture, tmp_path / caption, caption)
        read[caption] = imread(tmp_path / caption / "seeds.png")
    heights = [len(image) for image in read.values()]
    assert heights[0] < heights[1] < heights[2] and heights[0] == round(picture.figure.get_figheight() * DPI)
    for image in read.values():
        assert np.array_equal(image[: heights[0]], read["none"])
        rest = image[heights[0] :]
        assert not len(rest) or rest.min() < 0.5 < rest.max()


@pytest.mark.slow
@pytest.mark.parametrize("name", CATALOGUE)
def test_the_same_tables_give_the_same_bytes(tmp_path, everything, drawings, name):
    again = figures.draw(name, [everything[name]], tmp_path).files
    for one, other in zip(drawings[name, "two"][1], again, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_marks_do_without_colour():
    assert len(set(style.SIZE_AREAS.values())) == len(set(style.SIZE_LINES.values())) == 4
    assert len(set(style.PATCH_MARKERS)) == len(style.PATCH_MARKERS)
    assert len(set(style.PATCH_LINES[:3])) == 3  # the paper's number of patch sizes
    assert len({marker for _, marker, _ in style.SERIES}) == len({line for *_, line in style.SERIES}) == 7
    assert len(set(style.SOURCE_FILLS)) == len(set(style.SOURCE_LINES)) == 4


def test_the_published_source_is_the_papers_tables():
    tables = published_source().tables
    assert len(tables.evals) == 19
    best = tables.evals.set_index(["run", "step"]).loc[("XL/2 adaln-zero imagenet-256-latents", 400_000)]
    assert (best["fid"], best["gmacs"], best["num_samples"], best["sampling_steps"]) == (19.47, 118.64, 50_000, 250)
    assert tables.evals["decoder"].unique().tolist() == ["stabilityai/sd-vae-ft-mse"]
    others = tables.other_evals
    assert sorted(others.loc[others["guidance_scale"] == 1.5, "fid"]) == [2.27, 2.3, 2.46, 3.04]
    assert tables.samples == {} and tables.train.empty


def test_an_unknown_figure_is_refused(tmp_path):
    with pytest.raises(ResultsError, match="histogram: no such figure; accepted: all, bubbles, blocks, fid-vs-steps, "):
        figures.draw("histogram", [published_source()], tmp_path)
    with pytest.raises(ResultsError, match="histogram: no such figure; accepted: all, bubbles, "):
        figures.named("histogram")


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("blocks", "needed: one model with at least two"),
        ("sampling-compute", "several values of sampling_steps; needed: two scores"),
        ("isoflop", "needed: models of at least 3 sizes and one patch size"),
        ("guidance", "several values of guidance_scale; needed: two scores"),
        ("decoders", "several values of decoder; needed: two scores"),
    ],
)
def test_what_would_be_needed_is_said(tmp_path, scaling, name, needed):
    with pytest.raises(NothingToDraw, match=needed):
        figures.draw(name, [scaling], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "needed"),
    [("seeds", "needed: at least two of one model"), ("fitted-law", "2 models; needed: at least 5")],
)
def test_what_a_small_study_lacks_is_said(tmp_path, name, needed):
    with pytest.raises(NothingToDraw, match=needed):
        figures.draw(name, [study(tmp_path, ["S/4", "B/2"])], tmp_path / "out")


def test_a_source_without_data_is_named_and_the_other_drawn(tmp_path, scaling):
    drawn = figures.draw("loss", [published_source(), scaling], tmp_path)
    assert drawn.left_out == ["published: the paper prints no number of its losses (Fig. 13); needed: a results folder"]
    assert set(pd.read_csv(tmp_path / "training_loss.csv")["source"]) == {"results"}


SCORED = [name for name in CATALOGUE if name not in OF_LOSSES]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", SCORED)
def test_scores_that_are_not_finite_are_refused(tmp_path, everything, name, bad):
    source = everything[name]
    evals = source.tables.evals.copy()
    row = evals.index[len(evals) // 2]
    evals.loc[row, "fid"] = bad
    broken = replace(source, tables=replace(source.tables, evals=evals))
    where = rf"fid of {evals.loc[row, 'label']} \(run {evals.loc[row, 'run']}, step {evals.loc[row, 'step']}\) is {bad}"
    with pytest.raises(ResultsError, match=where):
        figures.draw(name, [broken], tmp_path)
    with pytest.raises(ResultsError, match=where):
        figures.draw_available([broken], tmp_path)
    assert not list(tmp_path.glob(f"{name}*"))


def test_a_loss_that_is_not_finite_is_refused(tmp_path, scaling):
    train = scaling.tables.train.copy()
    train.loc[3, "loss"] = np.nan
    with pytest.raises(ResultsError, match=r"loss of S/4 \(run s40, step 400\) is nan"):
        figures.draw("loss", [replace(scaling, tables=replace(scaling.tables, train=train))], tmp_path)


@pytest.mark.parametrize("name", ["bubbles", "fid-vs-steps", "gflops-vs-fid", "training-compute", "metrics", "seeds"])
def test_mixed_evaluation_keys_are_refused(tmp_path, scaling, name):
    evals = scaling.tables.evals.copy()
    evals.loc[0, "num_samples"] = 5000
    with pytest.raises(ResultsError, match="differ in num_samples: 5000, 1000"):
        figures.draw(name, [replace(scaling, tables=replace(scaling.tables, evals=evals))], tmp_path)


def evaluated(name: str, **changed) -> Scores:
    """One score of a source, ImageNet as in Table 4 unless `changed`."""
    tables = published_source().tables
    row = tables.evals.loc[tables.evals["run"] == "XL/2 adaln-zero imagenet-256-latents"].head(1)
    return Scores(Source(name, tables), row.assign(**changed))


def test_only_what_may_be_compared_shares_axes():
    ours = {"decoder": "stabilityai/sd-vae-ft-mse@1234", "reference": "adm-imagenet-256-5678"}
    paper, same = evaluated("published"), evaluated("ours", **ours)
    assert side_by_side([paper, same]) == [[paper, same]]
    for changed in (
        {"sampling_steps": 25},
        {"weights": "raw"},
        {"reference": "adm-imagenet-512"},
        {"decoder": "stabilityai/sd-vae-ft-ema@1234"},
        {"num_samples": 10_000},
        {"labels": "balanced"},
        {"guidance_scale": 1.5},
    ):
        other = evaluated("ours", **ours | changed)
        assert side_by_side([paper, other]) == [[paper], [other]], changed
    first, second = evaluated("ours", **ours), evaluated("theirs", **ours, labels="balanced")
    assert side_by_side([first, second]) == [[first], [second]]
    later = evaluated("ours", **ours, step=800_000)
    assert side_by_side([paper, later], also=("step",)) == [[paper], [later]]


def test_sources_of_one_name_or_too_many_are_refused(tmp_path):
    with pytest.raises(ResultsError, match="two sources are called published"):
        open_sources(["published", "published"])
    with pytest.raises(ResultsError, match="5 sources; accepted: at most 4"):
        open_sources(["published"] * 5)
    with pytest.raises(ResultsError, match=r"nowhere: no such results, runs\.parquet is missing"):
        open_sources([str(tmp_path / "nowhere")])
    with pytest.raises(ResultsError, match="that name stands for the papers' tables"):
        measured(published_source().tables, "published")


def test_more_lines_than_can_be_told_apart_are_refused(tmp_path):
    with pytest.raises(NothingToDraw, match="more than 7 in one panel"):
        figures.draw("seeds", [study(tmp_path, ["S/4"], seeds=range(8))], tmp_path / "out")


def test_the_catalogue_needs_neither_torch_nor_pandas_nor_matplotlib():
    code = (
        "import sys, analysis.commands.figure;"
        "print(sorted({'torch', 'pandas', 'matplotlib', 'scipy', 'models', 'bench', 'sweeps'} & set(sys.modules)))"
    )
    assert run(code) == "[]"


@pytest.mark.slow
def test_drawing_all_published_figures_does_not_import_torch(tmp_path):
    code = (
        "import sys, pathlib, analysis.figures as f, analysis.figures.sources as s;"
        f"f.draw_available(s.open_sources(['published']), pathlib.Path({str(tmp_path)!r}));"
        "print(sorted({'torch', 'models', 'bench', 'sweeps'} & set(sys.modules)))"
    )
    assert run(code) == "[]"


def run(code: str) -> str:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_made_up_evaluations_have_the_keys_of_real_ones():
    assert set(evaluation("S/4", 500)) <= {*published_source().tables.evals.columns}
