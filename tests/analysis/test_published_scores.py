"""Measured beside published: what is compared, what is not and why; the recipes that lead to published rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from paper_runs import AT_512, FT_EMA, FT_MSE, GUIDED, PAPERS_EVALUATION, PAPERS_TRAINING, run
from run_folders import collect, evaluation, write_lines, write_run

import sweeps
from analysis.compare.beside_published import HEADINGS, published_table
from analysis.results.published import (
    CONDITIONS,
    KNOBS,
    METRICS,
    compared,
    compared_evaluations,
    near_misses,
    near_misses_of_evaluations,
    published,
    published_evaluations,
)
from analysis.results.tables import Tables, load
from bench.flops import forward_gmacs
from bench.recipe import Recipe
from bench.samplers.guide import forward_passes
from sweeps.cluster import load_cluster
from sweeps.expand import load_sweep
from sweeps.planning.plan import plan
from sweeps.planning.report import as_json

ROOT = Path(__file__).parents[2]
SWEEPS = Path(sweeps.__file__).parent / "studies"


def external(**changes: Any) -> pd.DataFrame:
    """One evaluation of DiT-XL/2 at 400K steps as a frame of its own, all scores 1."""
    row = {"model": "DiT-XL/2", "block": "adaln-zero", "data": "imagenet-256-latents", "gmacs": 118.638}
    row |= {"step": 400_000, **PAPERS_TRAINING, **PAPERS_EVALUATION, **dict.fromkeys(METRICS, 1.0)}
    return pd.DataFrame([row | changes])


def tables_of(tmp_path: Path) -> Tables:
    return collect(tmp_path / "runs", tmp_path / "results")


# What is compared


def test_the_difference_to_the_published_score(tmp_path: Path) -> None:
    run(tmp_path / "runs", "XL/2", [{"step": 400_000, "fid": 18.1}])
    (row,) = compared(tables_of(tmp_path)).to_dict("records")
    assert (row["label"], row["run"], row["model"], row["step"]) == ("XL/2", "xl20", "DiT-XL/2", 400_000)
    assert (row["metric"], row["published"], row["ours"]) == ("fid", 19.47, 18.1)
    assert row["difference"] == 18.1 - 19.47
    assert row["relative_difference"] == pytest.approx(-0.07036, abs=5e-6)
    assert {name: row[name] for name in PAPERS_EVALUATION if name != "guidance_channels"} == {
        name: value for name, value in PAPERS_EVALUATION.items() if name != "guidance_channels"
    }
    assert pd.isna(row["guidance_channels"])
    assert row["source"] == "Peebles & Xie 2022 (arXiv:2212.09748) Table 4"


# As `bench` writes an evaluation by SiT's protocol: DiT's networks with another objective and sampler.
OF_SIT = {"objective": "flow", "sampler": "sde", "decoder": FT_EMA}


@pytest.mark.parametrize(
    ("model", "gmacs", "step", "fid"),
    [
        ("DiT-B/2", 23.01, 400_000, 33.0),
        ("DiT-L/2", 80.71, 400_000, 18.8),
        ("DiT-XL/2", 118.638, 400_000, 17.2),
        ("DiT-XL/2", 118.638, 7_000_000, 8.3),
    ],
)
def test_a_flow_is_compared_with_sit_and_not_with_dit(model: str, gmacs: float, step: int, fid: float) -> None:
    ours = external(model=model, gmacs=gmacs, step=step, **OF_SIT)
    assert compared_evaluations(ours)["published"].tolist() == [fid]
    for change in ({"sampler": "heun", "sampling_steps": 125}, {"sampler": "sde norm=0.5"}, {"decoder": FT_MSE}):
        assert compared_evaluations(ours.assign(**change)).empty
        assert len(near_misses_of_evaluations(ours.assign(**change)))
    # Whatever agrees besides, another objective is another model.
    assert compared_evaluations(external(model=model, gmacs=gmacs, step=step, objective="flow")).empty
    assert compared_evaluations(ours.assign(objective="iddpm")).empty


# Typed from the paper: step, guidance, decoder -> FID, sFID, IS, precision, recall, and the table.
XL2 = [
    ({"step": 400_000}, [19.47], 4),
    ({"step": 2_352_000}, [10.67], 4),
    ({"step": 7_000_000}, [9.62], 4),
    ({"step": 7_000_000, "decoder": FT_EMA}, [9.62, 6.85, 121.50, 0.67, 0.67], 2),
    ({"step": 7_000_000, "guidance_scale": 1.25, **GUIDED}, [3.22, 5.28, 201.77, 0.76, 0.62], 2),
    ({"step": 7_000_000, "guidance_scale": 1.5, **GUIDED}, [2.27, 4.60, 278.24, 0.83, 0.57], 2),
    ({"step": 7_000_000, "guidance_scale": 1.5, **GUIDED, "decoder": FT_MSE}, [2.30, 4.73, 276.09, 0.83, 0.57], 5),
    ({"step": 400_000, "block": "in-context", "gmacs": 119.371}, [35.24], 4),
    ({"step": 400_000, "block": "cross-attention", "gmacs": 137.619}, [26.14], 4),
    ({"step": 400_000, "block": "adaln", "gmacs": 118.564}, [25.21], 4),
    ({"step": 1_301_000, **AT_512}, [13.78], 4),
    ({"step": 3_000_000, **AT_512}, [11.93], 4),
    ({"step": 3_000_000, **AT_512, "decoder": FT_EMA}, [12.03, 7.12, 105.25, 0.75, 0.64], 3),
    ({"step": 3_000_000, **AT_512, "guidance_scale": 1.25, **GUIDED}, [4.64, 5.77, 174.77, 0.81, 0.57], 3),
    ({"step": 3_000_000, **AT_512, "guidance_scale": 1.5, **GUIDED}, [3.04, 5.02, 240.82, 0.84, 0.54], 3),
]


@pytest.mark.parametrize(("changes", "scores", "table"), XL2)
def test_every_published_row_of_xl2_is_found_once(changes: dict[str, Any], scores: list[float], table: int) -> None:
    rows = compared_evaluations(external(**changes))
    assert_frame_equal(compared_evaluations(external(**changes, reference_statistics="of the file")), rows)
    assert rows["metric"].tolist() == list(METRICS)[: len(scores)]
    assert rows["published"].tolist() == scores
    assert set(rows["source"]) == {f"Peebles & Xie 2022 (arXiv:2212.09748) Table {table}"}
    assert near_misses_of_evaluations(external(**changes)).empty


def test_every_model_as_counted_is_the_published_one() -> None:
    """The paper's GMACs are rounded: the suite's counts are the same models all the same."""
    counts = pd.read_csv(ROOT / "results" / "flops.csv")
    counted = {(row["model"], row["block"], row["image_size"]): row["gmacs"] for row in counts.to_dict("records")}
    table = published("dit_table4")
    for row in table.to_dict("records"):
        size = row["image_size"]
        mine = external(
            model=row["model"],
            block=row["block"],
            data=f"imagenet-{size}-latents",
            gmacs=counted[row["model"], row["block"], size],
            step=1000 * row["train_steps_k"],
            reference=f"adm-imagenet-{size}-1000-01234567",
        )
        assert compared_evaluations(mine)["published"].tolist() == [row["fid50k"]]
    assert len(table) == 19
    of_dit = published_evaluations().query("objective == 'iddpm'")
    assert len(of_dit) == len(table) + 7


def test_scores_that_were_not_computed_have_no_row() -> None:
    rows = compared_evaluations(external(step=7_000_000, decoder=FT_EMA, sfid=None, recall=float("nan")))
    assert rows["metric"].tolist() == ["fid", "inception_score", "precision"]


def test_each_evaluation_of_a_step_has_its_own_published_row(tmp_path: Path) -> None:
    scores = [{"decoder": FT_EMA, "fid": 9.7}, {"fid": 9.8}]
    guided = {"guidance_scale": 1.5, **GUIDED, "fid": 2.3}
    run(tmp_path / "runs", "XL/2", [{"step": 7_000_000} | row for row in [*scores, guided]])
    rows = compared(tables_of(tmp_path)).query("metric == 'fid'")
    found = {row["ours"]: (row["published"], row["decoder"], row["guidance_scale"]) for row in rows.to_dict("records")}
    assert found == {9.7: (9.62, FT_EMA, 1.0), 9.8: (9.62, FT_MSE, 1.0), 2.3: (2.27, FT_EMA, 1.5)}


def test_what_the_papers_leave_open_is_shown(tmp_path: Path) -> None:
    sizes = [100, 1000]
    run(tmp_path / "runs", "XL/2", [{"step": 400_000, "kid_subset_size": size} for size in sizes])
    assert compared(tables_of(tmp_path))["kid_subset_size"].tolist() == sizes


# What is not


# What differs, how it is shown, and how the published is.
OTHERS: dict[str, tuple[Any, str, str]] = {
    "gmacs": (6.1, "6.1", "6.06"),
    "batch_size": (1024, "1024", "256"),
    "learning_rate": (3e-4, "0.0003", "0.0001"),
    "weight_decay": (0.01, "0.01", "0"),
    "ema_decay": (0.999, "0.999", "0.9999"),
    "label_dropout": (0.2, "0.2", "0.1"),
    "clip_grad_norm": (1.0, "1", "none"),
    "warmup_steps": (5000, "5000", "0"),
    "schedule": ("cosine", "cosine", "constant"),
    "final_learning_rate": (0.1, "0.1", "0"),
    "cooldown_steps": (1000, "1000", "0"),
    "decay_matrices_only": (True, "True", "False"),
    "step": (350_000, "350000", "400000"),
    "weights": ("raw", "raw", "ema"),
    "sampler": ("ddim", "ddim", "ddpm"),
    "sampling_steps": (50, "50", "250"),
    "clip_denoised": (True, "True", "False"),
    "guidance_scale": (1.25, "1.25", "1"),
    "guidance_channels": (3, "3", "none"),
    "guidance_interval": ("200 to 800", "200 to 800", "none"),
    "guide": ("step 200000", "step 200000", "none"),
    "decoder": (FT_EMA, FT_EMA, "stabilityai/sd-vae-ft-mse"),
    "num_samples": (10_000, "10000", "50000"),
    "labels": ("balanced", "balanced", "uniform"),
    "reference": ("adm-imagenet-512-1000-01234567", "adm-imagenet-512-1000-01234567", "adm-imagenet-256"),
    "extractor": ("dinov2-vitl14-01234567", "dinov2-vitl14-01234567", "inception-v3-compat"),
    "best_of": (12, "12", "none"),
    "reference_statistics": ("of its 10000 images", "of its 10000 images", "of the file"),
}


# No guided channels are none; what rows of earlier versions do not say of the statistics, reference and extractor do.
MAY_BE_MISSING = ("guidance_channels", "guidance_interval", "guide", "best_of", "reference_statistics", *KNOBS)


def test_every_condition_is_tried() -> None:
    assert tuple(OTHERS) == CONDITIONS


@pytest.mark.parametrize("name", OTHERS)
def test_what_differs_in_one_condition_is_named_and_not_compared(tmp_path: Path, name: str) -> None:
    value, ours, theirs = OTHERS[name]
    of_the_run = {name: value} if name in ("gmacs", *PAPERS_TRAINING, *KNOBS) else {}
    of_the_row = {} if of_the_run else {name: value}
    run(tmp_path / "runs", "S/2", [{"step": 400_000, **of_the_row}], **of_the_run)
    tables = tables_of(tmp_path)
    assert compared(tables).empty
    (row,) = near_misses(tables).to_dict("records")
    assert (row["condition"], row["ours"], row["published"]) == (name, ours, theirs)
    assert (row["label"], row["source"]) == ("S/2", "Peebles & Xie 2022 (arXiv:2212.09748) Table 4")
    assert not (tmp_path / "results" / "published.csv").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("decoder", "stabilityai/sd-vae-ft-mse-2@01234567"),
        ("decoder", "sd-vae-ft-mse@01234567"),
        ("reference", "adm-imagenet-2560-10000-01234567"),
        ("reference", "my-adm-imagenet-256-10000-01234567"),
        ("extractor", "inception-v3-compatible-01234567"),
    ],
)
def test_names_that_only_look_alike_are_others(name: str, value: str) -> None:
    assert compared_evaluations(external(**{name: value})).empty
    assert near_misses_of_evaluations(external(**{name: value}))["condition"].tolist() == [name]


@settings(max_examples=30, deadline=None)
@given(st.sets(st.sampled_from([name for name in OTHERS if name != "step"]), min_size=1))
def test_all_differing_conditions_are_named(names: set[str]) -> None:
    changes = {name: OTHERS[name][0] for name in names}
    evaluations = external(model="DiT-S/2", **{"gmacs": 6.058, **changes})
    assert compared_evaluations(evaluations).empty
    assert set(near_misses_of_evaluations(evaluations)["condition"]) == names


@settings(max_examples=30, deadline=None)
@given(st.sets(st.sampled_from([name for name in OTHERS if name not in MAY_BE_MISSING]), min_size=1))
def test_what_is_not_known_is_not_as_published(names: set[str]) -> None:
    missing = external(model="DiT-S/2", gmacs=6.058).drop(columns=sorted(names))
    assert compared_evaluations(missing).empty
    rows = near_misses_of_evaluations(missing)
    assert set(rows["condition"]) == names
    assert set(rows["ours"]) == {"unknown"}


def test_the_nearest_published_row_is_the_one_that_is_named() -> None:
    """Fewest differing conditions first, then the closest step."""
    rows = near_misses_of_evaluations(external(step=2_000_000))
    assert rows[["condition", "published"]].to_numpy().tolist() == [["step", "2352000"]]
    rows = near_misses_of_evaluations(external(step=6_000_000, guidance_scale=1.5, **GUIDED))
    assert rows[["condition", "published"]].to_numpy().tolist() == [["step", "7000000"]]
    assert rows["source"].tolist() == ["Peebles & Xie 2022 (arXiv:2212.09748) Table 2"]


@pytest.mark.parametrize(
    "changes", [{"model": "DiT"}, {"block": "adaln-single"}, {"data": "flowers-256-latents"}, {"data": None}]
)
def test_what_no_paper_has_scores_of_is_not_near(changes: dict[str, Any]) -> None:
    assert compared_evaluations(external(**changes)).empty
    assert near_misses_of_evaluations(external(**changes)).empty


# What is written and shown


def test_collect_writes_the_comparison_where_there_is_one(tmp_path: Path) -> None:
    folder = run(tmp_path / "runs", "XL/2", [{"step": 400_000, "fid": 18.1}])
    tables = tables_of(tmp_path)
    path = tmp_path / "results" / "published.csv"
    written = pd.read_csv(path)
    assert_frame_equal(written, compared(tables), check_dtype=False, check_exact=True)
    assert_frame_equal(compared(load(tmp_path / "results")), compared(tables))
    write_lines(folder / "evals.jsonl", [evaluation("XL/2", 500)])
    assert compared(tables_of(tmp_path)).empty
    assert not path.exists()


def test_the_table_as_text(tmp_path: Path) -> None:
    guided = {"step": 7_000_000, "guidance_scale": 1.5, **GUIDED, "fid": 2.5, "precision": 0.8}
    absent = {"sfid": None, "inception_score": None, "recall": None}
    run(tmp_path / "runs", "XL/2", [{"step": 400_000, "fid": 18.1}, guided | absent])
    source = "Peebles & Xie 2022 (arXiv:2212.09748) Table"
    rows = published_table(tables_of(tmp_path))
    assert rows == [
        [
            "XL/2",
            "0",
            "400,000",
            "fid",
            "19.47",
            "18.10",
            "-1.37",
            "-7.0",
            "inside 17.40 to 21.78",
            "none",
            FT_MSE,
            f"{source} 4",
        ],
        ["XL/2", "0", "7,000,000", "fid", "2.27", "2.50", "+0.23", "+10.1", "", "1.5", FT_EMA, f"{source} 2"],
        ["XL/2", "0", "7,000,000", "precision", "0.83", "0.80", "-0.03", "-3.6", "", "1.5", FT_EMA, f"{source} 2"],
    ]
    assert all(len(row) == len(HEADINGS) for row in rows)


def test_scores_that_earlier_versions_did_not_have_are_empty(tmp_path: Path) -> None:
    run(tmp_path / "runs", "S/2", [{"step": 400_000, "sfid": 70.5, "fid_infinity": 66.25}, {"step": 50_000}])
    evals = tables_of(tmp_path).evals
    scores = dict(zip(evals["step"], evals[["sfid", "fid_infinity"]].to_numpy().tolist(), strict=True))
    assert scores[400_000] == [70.5, 66.25]
    assert np.isnan(scores[50_000]).all()
    write_run(tmp_path / "digits", "S/4")
    without = collect(tmp_path / "digits", tmp_path / "without").evals
    assert np.isnan(without[["sfid", "fid_infinity"]].to_numpy()).all()
    old = load(ROOT / "results" / "digits")
    assert np.isnan(old.evals[["sfid", "fid_infinity"]].to_numpy()).all()
    assert np.isnan(old.runs[list(PAPERS_TRAINING)[1:]].to_numpy()).all()
    assert compared(old).empty
    assert near_misses(old).empty


@pytest.mark.slow  # of what is imported, test_architecture.py and test_light_imports.py tell it too
def test_tables_are_compared_without_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from analysis.results import published, tables;"
        "published.compared(tables.load(Path('results/digits')));"
        "print(sorted({'torch', 'models', 'bench', 'sweeps', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The sweeps that lead there


def evaluations_of(recipe: Recipe) -> pd.DataFrame:
    """What the run of a recipe will be known by in the tables, at each kept step, with all scores 1."""
    scoring, train = recipe.evaluation, recipe.train
    key = {name: getattr(scoring, name) for name in PAPERS_EVALUATION if hasattr(scoring, name)}
    if scoring.guidance_scale == 1:
        key["guidance_channels"] = None
    named = {"decoder": f"{scoring.decoder}@01234567", "reference": f"{scoring.reference}-10000-01234567"}
    named |= {"extractor": f"{scoring.extractor}-01234567", "weights": "ema"}
    training = {name: getattr(train, name) for name in PAPERS_TRAINING}
    model = {"model": recipe.model.name, "block": recipe.model.architecture().block, "data": recipe.data.name}
    training["gmacs"], model["objective"] = forward_gmacs(recipe.model), recipe.diffusion.id
    rows = [{**model, **training, **key, **named, "step": step, "label": recipe.label} for step in train.kept_steps()]
    return pd.DataFrame(rows).assign(**dict.fromkeys(METRICS, 1.0))


EVERY_50K = list(range(50_000, 400_001, 50_000))
SIZES = [f"{size}/{patch}" for size in ("S", "B", "L", "XL") for patch in (8, 4, 2)]
AT_400K = {
    "scaling": dict(
        zip(SIZES, [153.6, 100.41, 68.4, 122.74, 68.38, 43.47, 118.87, 45.64, 23.33, 106.41, 43.01, 19.47], strict=True)
    ),
    "blocks": {
        "XL/2 in-context": 35.24,
        "XL/2 cross-attention": 26.14,
        "XL/2 adaln": 25.21,
        "XL/2 adaln-zero": 19.47,
    },
}


@pytest.mark.parametrize("name", AT_400K)
def test_the_papers_studies_end_at_published_scores(name: str) -> None:
    recipes = load_sweep(SWEEPS / f"{name}.yaml").recipes
    assert [recipe.label for recipe in recipes] == list(AT_400K[name])
    for recipe in recipes:
        assert recipe.train.kept_steps() == EVERY_50K
        rows = compared_evaluations(evaluations_of(recipe))
        assert rows[["step", "published"]].to_numpy().tolist() == [[400_000, AT_400K[name][recipe.label]]]


@pytest.mark.parametrize(
    ("name", "steps", "scores"),
    [
        ("xl2-long", 7_000_000, {400_000: 19.47, 2_352_000: 10.67, 7_000_000: 9.62}),
        ("xl2-512", 3_000_000, {1_301_000: 13.78, 3_000_000: 11.93}),
    ],
)
def test_the_long_runs_pass_the_published_scores(name: str, steps: int, scores: dict[int, float]) -> None:
    (recipe,) = load_sweep(SWEEPS / f"{name}.yaml").recipes
    assert (recipe.label, recipe.train.steps) == ("XL/2", steps)
    rows = compared_evaluations(evaluations_of(recipe))
    assert dict(zip(rows["step"], rows["published"], strict=True)) == scores
    guided = evaluations_of(recipe).tail(1).assign(guidance_scale=1.5, **GUIDED)
    assert compared_evaluations(guided)["metric"].tolist() == list(METRICS)


def test_sits_study_ends_at_its_published_scores_by_the_sde() -> None:
    recipes = load_sweep(SWEEPS / "sit.yaml").recipes
    rows = pd.concat([evaluations_of(recipe) for recipe in recipes])
    found = compared_evaluations(rows)
    assert dict(zip(found["label"], found["published"], strict=True)) == {
        "SiT-B/2": 33.0,
        "SiT-L/2": 18.8,
        "SiT-XL/2": 17.2,
    }
    assert set(found["step"]) == {400_000}
    dits = {recipe.model.name: recipe for recipe in load_sweep(SWEEPS / "scaling.yaml").recipes}
    for recipe in recipes:
        assert recipe.train == dits[recipe.model.name].train  # the training differs in the objective alone
        assert recipe.model == dits[recipe.model.name].model
        sde, ode = recipe.evaluations
        calls = [forward_passes(evaluation, recipe.diffusion, 1.0) for evaluation in (sde, ode)]
        assert [sde.sampler_id, ode.sampler_id, *calls] == ["sde", "heun", 250, 250]
        assert [score.step for score in recipe.wanted_scores() if score.name] == [400_000]


@pytest.mark.parametrize("name", ["scaling", "blocks", "xl2-long", "xl2-512", "sit"])
def test_headers_say_what_is_planned_and_published(name: str) -> None:
    path = SWEEPS / f"{name}.yaml"
    header = path.read_text(encoding="utf-8").partition("\nname:")[0].replace("\n#", "")
    committed = json.loads((ROOT / "results" / "plans" / f"{name}.json").read_text(encoding="utf-8"))
    sweep, cluster = load_sweep(path), "slurm-example"
    made = plan(sweep, load_cluster(cluster), cluster, {r.id: Path("nowhere") / r.id for r in sweep.recipes})
    assert as_json(made) == committed
    hours = [f"{committed[f'{kind}_gpu_hours']:,.0f}" for kind in ("training", "scoring")]
    days = f"{committed['wall_s'] / 86400:.1f}"
    assert f"{hours[0]} GPU-hours of training and {hours[1]} of scoring, {days} days" in header
    evaluations = pd.concat([evaluations_of(recipe) for recipe in sweep.recipes])
    if name.startswith("xl2"):
        last = evaluations.tail(1).assign(decoder=FT_EMA)
        guided = [last.assign(guidance_scale=scale, guidance_channels=3) for scale in (1.25, 1.5)]
        evaluations = pd.concat([evaluations, last, *guided])
        assert f"{2 * committed['scoring_gpu_hours'] / committed['runs'][0]['scores_left']:.0f} GPU-hours." in header
    rows = compared_evaluations(evaluations)
    assert len(rows) >= (3 if name == "sit" else 4)
    digits = 1 if name == "sit" else 2  # as the papers print them
    assert all(f" {value:.{digits}f}" in header for value in rows["published"])
