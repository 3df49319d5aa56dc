import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from pandas.testing import assert_frame_equal
from run_folders import LABELS, STEPS, collect, config, evaluation, fid_of, gmacs_of, write_lines, write_run

from analysis.results.tables import ResultsError, comparable, correlations, evaluation_keys, load, published, summary
from bench.errors import InputError

TABLES = ("runs", "train", "evals")


@pytest.fixture
def sweep(tmp_path):
    return tmp_path / "digits"


def test_collected_tables_read_back_the_same(sweep, tmp_path):
    for label in ("B/2", "S/4"):
        write_run(sweep, label)
    collected = collect(sweep, tmp_path / "results")
    loaded = load(tmp_path / "results")
    for name in TABLES:
        assert_frame_equal(getattr(collected, name), getattr(loaded, name))
        text = pd.read_csv(tmp_path / "results" / f"{name}.csv")
        assert_frame_equal(text, getattr(loaded, name), check_dtype=False, check_exact=True)
    assert loaded.samples.keys() == {"s40", "b20"}
    assert np.array_equal(loaded.samples["s40"], collected.samples["s40"])


def test_one_row_says_everything_about_a_run(sweep, tmp_path):
    path = write_run(sweep, "XL/1", seed=3) / "config.yaml"
    config = yaml.safe_load(path.read_text())
    optimisation = {"learning_rate": 1e-4, "weight_decay": 0.0, "ema_decay": 0.9999, "label_dropout": 0.1}
    config["recipe"]["train"] |= optimisation
    path.write_text(yaml.safe_dump(config))
    (row,) = collect(sweep, tmp_path).runs.to_dict("records")
    assert pd.isna(row.pop("metrics")), "an earlier version's run folder does not describe them"
    assert pd.isna(row.pop("clip_grad_norm"))
    assert row == {
        "run": "xl13",
        "sweep": "digits",
        "label": "XL/1",
        "family": "DiT",
        "objective": "iddpm",
        "size": "XL",
        "patch": 1,
        "patch_frames": None,
        "model": "DiT-XL/1",
        "block": "adaln-zero",
        "params": 786432,
        "gmacs": gmacs_of("XL/1"),
        "tokens": 64,
        "hidden_size": 128,
        "depth": 4,
        "num_heads": 4,
        "input_size": 8,
        "data": "digits",
        "seed": 3,
        "steps": 2000,
        "batch_size": 64,
        **optimisation,
        "warmup_steps": 0,
        "schedule": "constant",
        "final_learning_rate": 0.0,
        "cooldown_steps": 0,
        "decay_matrices_only": False,
        "non_finite": "stop",
        "state": "finished",
        "device": "cpu",
        "precision": "fp32",
        "commit": "c0ffee",
        "starts": 1,
        "started": "2024-01-01T00:00:00Z",
        "finished": "2024-01-01T01:00:00Z",
        "training_gmacs": 3 * gmacs_of("XL/1") * 64 * 2000,
    }


def test_rows_are_ordered_by_seed_and_compute(sweep, tmp_path):
    for seed in (1, 0):
        for label in ("XL/2", "S/4", "B/1"):
            write_run(sweep, label, seed)
    tables = collect(sweep, tmp_path)
    assert tables.runs["run"].tolist() == ["s40", "b10", "xl20", "s41", "b11", "xl21"]
    assert tables.evals["run"].drop_duplicates().tolist() == tables.runs["run"].tolist()
    assert tables.evals["step"].tolist() == list(STEPS) * 6


def test_samples_are_the_first_ten_of_the_last_step(sweep, tmp_path):
    folder = write_run(sweep, "S/4", channels=3)
    samples = collect(sweep, tmp_path).samples["s40"]
    assert np.array_equal(samples, np.load(folder / "samples" / "2000.npy")[:10])


def test_samples_of_earlier_steps_are_of_the_smallest_seed_and_of_small_images(sweep, tmp_path):
    folder = write_run(sweep, "S/4", seed=1)
    write_run(sweep, "S/4", seed=2)
    large = write_run(sweep, "B/4", seed=1)
    for step in STEPS:
        np.save(large / "samples" / f"{step}.npy", np.zeros((10, 3, 64, 64), np.uint8))
    (folder / "samples" / "1000.npy").unlink()
    for tables in (collect(sweep, tmp_path), load(tmp_path)):
        assert {run: sorted(steps) for run, steps in tables.earlier_samples.items()} == {"s41": [500, 1500]}
        assert np.array_equal(tables.earlier_samples["s41"][500], np.load(folder / "samples" / "500.npy")[:10])
        assert sorted(tables.samples) == ["b41", "s41", "s42"]


def test_no_more_than_six_steps_of_a_run_are_kept(sweep, tmp_path):
    write_run(sweep, "S/4", steps=tuple(range(100, 2100, 100)))
    steps = sorted(collect(sweep, tmp_path).earlier_samples["s40"])
    assert len(steps) == 5 and steps[0] == 100 and steps[-1] < 2000


def test_real_images_are_of_the_classes_of_the_samples(sweep, tmp_path):
    from sklearn.datasets import load_digits

    write_run(sweep, "S/4")
    levels, labels = load_digits(return_X_y=True)
    for tables in (collect(sweep, tmp_path), load(tmp_path)):
        images, classes = tables.real["digits"]
        assert classes == 10 and images.shape == (10, 1, 8, 8)
        for label, image in enumerate(images):
            first = levels[list(labels).index(label)].reshape(8, 8)
            assert np.array_equal(image[0], np.rint(first * 255 / 16).astype(np.uint8))


@pytest.mark.parametrize(
    "data", [{"name": "imagenet-256-latents"}, {"name": "my_file:Mine"}, {"name": "digits", "no": 1}]
)
def test_data_without_images_at_hand_have_no_real_ones(sweep, tmp_path, data):
    folder = write_run(sweep, "S/4")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["recipe"]["data"] = data
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    tables = collect(sweep, tmp_path)
    assert tables.real == {} and list(tables.samples) == ["s40"]


def test_samples_that_were_cleared_away_are_left_out(sweep, tmp_path):
    folder = write_run(sweep, "S/4")
    (folder / "samples" / "2000.npy").unlink()
    tables = collect(sweep, tmp_path)
    assert tables.samples == {}
    assert len(tables.evals) == 4


def test_a_run_that_has_just_been_created_counts_as_unfinished(sweep, tmp_path):
    write_run(sweep, "S/4")
    folder = write_run(sweep, "B/4")
    for path in [*folder.glob("*.jsonl"), folder / "model.json", folder / "finished.json"]:
        path.unlink()
    tables = collect(sweep, tmp_path)
    assert tables.runs["state"].tolist() == ["finished", "unfinished"]
    assert tables.runs["gmacs"].isna().tolist() == [False, True]
    assert tables.runs[["family", "objective"]].to_numpy().tolist() == [["DiT", "iddpm"], ["", ""]]  # not known yet
    assert tables.runs["starts"].tolist() == [1, 0]
    assert set(tables.evals["run"]) == {"s40"}
    for name in TABLES:
        assert_frame_equal(getattr(tables, name), getattr(load(tmp_path), name))


def test_a_failed_run_is_marked(sweep, tmp_path):
    folder = write_run(sweep, "S/4", steps=(500,))
    (folder / "finished.json").unlink()
    (folder / "error.json").write_text('{"error": "out of memory"}')
    assert collect(sweep, tmp_path).runs["state"].tolist() == ["failed"]


def test_a_torn_last_line_is_dropped(sweep, tmp_path):
    folder = write_run(sweep, "S/4")
    for name in ("train.jsonl", "evals.jsonl"):
        with (folder / name).open("a") as file:
            file.write('{"step": 2100, "lo')
    tables = collect(sweep, tmp_path)
    assert tables.train["step"].tolist()[-1] == 2000
    assert tables.evals["step"].tolist() == list(STEPS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", r"train\.jsonl, line 2: not JSON"),
        ("[1, 2]", r"train\.jsonl, line 2: not an object"),
        ('{"loss": 1}', r"train\.jsonl, line 2: no 'step'"),
        ('{"step": 200, "loss": "high"}', r"train\.jsonl: a value of 'loss' is not of type float64"),
        ('{"step": 200, "loss": [1]}', r"train\.jsonl: a value of 'loss' is not of type float64"),
        ('{"step": 200.5}', r"train\.jsonl: a value of 'step' is not of type Int64"),
        ('{"step": 200},', r"train\.jsonl, line 2: not JSON"),
        ('{"step": 200}, {"step": 300}', r"train\.jsonl, line 2: not JSON"),
        ("", r"train\.jsonl, line 2: not JSON"),
    ],
)
def test_a_damaged_line_is_named(sweep, tmp_path, line, message):
    path = write_run(sweep, "S/4") / "train.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[2:], ""]))
    with pytest.raises(ResultsError, match=message):
        collect(sweep, tmp_path)


def test_a_column_of_lists_is_refused(sweep, tmp_path):
    write_lines(write_run(sweep, "S/4") / "train.jsonl", [{"step": step, "loss": [1, 2]} for step in (100, 200)])
    with pytest.raises(ResultsError, match=r"train\.jsonl: a value of 'loss' is not of type float64"):
        collect(sweep, tmp_path)


def test_one_object_on_two_lines_is_refused_even_if_another_line_holds_two(sweep, tmp_path):
    path = write_run(sweep, "S/4") / "train.jsonl"
    path.write_text('{"step": 100, "x": [{}\n{}]}\n{"step": 200}, {"step": 300}\n')
    with pytest.raises(ResultsError, match=r"train\.jsonl, line 1: not JSON"):
        collect(sweep, tmp_path)


def test_what_else_lines_hold_is_kept(sweep, tmp_path):
    """Columns that no table knows, in the order in which they first come; a run's identity is not among them."""
    rows = [{"step": 100, "zeta": 1}, {"step": 200, "alpha": "a", "seed": 9}, {"step": 300, "zeta": 2}]
    write_lines(write_run(sweep, "S/4") / "train.jsonl", rows)
    train = collect(sweep, tmp_path).train
    assert train.columns.tolist()[-2:] == ["zeta", "alpha"]
    assert train["zeta"].fillna(0).tolist() == [1, 0, 2]
    assert train["alpha"].fillna("").tolist() == ["", "a", ""]
    assert train["seed"].tolist() == [0, 0, 0]


def test_the_later_line_of_a_repeated_training_step_counts(sweep, tmp_path):
    path = write_run(sweep, "S/4") / "train.jsonl"
    with path.open("a") as file:
        file.write(json.dumps({"step": 2000, "loss": 0.5}) + "\n")
    train = collect(sweep, tmp_path).train
    assert train.loc[train["step"] == 2000, "loss"].tolist() == [0.5]


def test_an_evaluation_repeated_with_the_same_score_counts_once(sweep, tmp_path):
    write_lines(write_run(sweep, "S/4") / "evals.jsonl", [evaluation("S/4", 500)] * 2)
    assert len(collect(sweep, tmp_path).evals) == 1


def test_two_scores_of_one_evaluation_are_refused(sweep, tmp_path):
    rows = [evaluation("S/4", 500), evaluation("S/4", 500, fid=1.0)]
    write_lines(write_run(sweep, "S/4") / "evals.jsonl", rows)
    with pytest.raises(ResultsError, match=r"evals\.jsonl: step 500 has two scores"):
        collect(sweep, tmp_path)


def test_a_missing_key_of_the_configuration_is_named(sweep, tmp_path):
    path = write_run(sweep, "S/4") / "config.yaml"
    content = yaml.safe_load(path.read_text())
    del content["recipe"]["train"]["batch_size"]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ResultsError, match=r"config\.yaml: no key 'recipe\.train\.batch_size'"):
        collect(sweep, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.yaml", "id: [", r"config\.yaml: line 1: "),
        ("config.yaml", "id: s40\n", r"config\.yaml: not a run's configuration"),
        ("config.yaml", "recipe: {}\naxes: S\n", r"config\.yaml: not a run's configuration"),
        ("model.json", '{"params": ', r"model\.json: cannot be read"),
        ("model.json", "[]", r"model\.json: not a mapping"),
        ("model.json", '{"params": 1}', r"model\.json: no key 'gmacs'"),
        ("finished.json", "{}", r"finished\.json: no key 'time'"),
        ("samples/2000.npy", "\x93NUMPY", r"2000\.npy: not a whole \.npy array"),
    ],
)
def test_a_damaged_file_is_named(sweep, tmp_path, name, content, message):
    (write_run(sweep, "S/4") / name).write_text(content, encoding="latin-1")
    with pytest.raises((InputError, ResultsError), match=message) as caught:
        collect(sweep, tmp_path / "results")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()


def test_samples_of_another_form_are_refused(sweep, tmp_path):
    np.save(write_run(sweep, "S/4") / "samples" / "2000.npy", np.zeros((20, 8, 8), np.float32))
    with pytest.raises(
        InputError, match=r"2000\.npy: shape \(20, 8, 8\) of float32; accepted: \(N, C, H, W\) of uint8"
    ):
        collect(sweep, tmp_path)


def test_samples_in_an_archive_are_refused(sweep, tmp_path):
    path = write_run(sweep, "S/4") / "samples" / "2000.npy"
    with path.open("wb") as file:
        np.savez(file, np.zeros((20, 1, 8, 8), np.uint8))
    with pytest.raises(InputError, match=r"2000\.npy: not a whole \.npy array"):
        collect(sweep, tmp_path)


def test_a_run_without_a_label_is_named_after_its_model(sweep, tmp_path):
    path = write_run(sweep, "S/4") / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"label": ""}))
    runs = collect(sweep, tmp_path).runs
    assert (runs["label"].tolist(), runs["size"].tolist()) == (["S/4"], ["S"])


def rewrite_config(folder, **changed):
    """Change keys of a run's config.yaml."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changed))


@pytest.mark.parametrize("label", ["Mamba-130M", "U-Net/64", "mine", "Sigmoid/4", "S 4", "größer"])
def test_a_label_is_free_text(sweep, tmp_path, label):
    """A run of a model without a preset, whose sweep has no axis of sizes: its size has no name."""
    folder = write_run(sweep, "S/4")
    model = {"name": "DiT", "block": "adaln-zero"}
    rewrite_config(folder, label=label, recipe=config("S/4")["recipe"] | {"model": model})
    collected = collect(sweep, tmp_path)
    for tables in (collected, load(tmp_path)):
        (row,) = tables.runs.to_dict("records")
        assert (row["label"], row["size"], row["patch"], row["block"]) == (label, "", 4, "adaln-zero")
        assert tables.evals["size"].tolist() == [""] * 4
    assert summary(collected)["label"].tolist() == [label]


@pytest.mark.parametrize(
    ("axes", "name", "label", "size"),
    [
        ({"size": "tiny", "patch_size": "4"}, "DiT-S/4", "S/4", "tiny"),
        ({"block": "adaln"}, "DiT-XL/2", "B/4 adaln", "XL"),
        ({"seed": "0"}, "my_file:FAMILY/very-small", "mine", "very-small"),
        ({"seed": "0"}, "my_file:FAMILY", "mine", ""),
        (None, "DiT", "XL/1", "XL"),  # of an earlier version
        (None, "DiT", "B", "B"),
    ],
)
def test_the_size_is_the_sweeps_choice_or_the_presets(sweep, tmp_path, axes, name, label, size):
    folder = write_run(sweep, "S/4")
    recipe = config("S/4")["recipe"] | {"model": {"name": name, "block": "adaln-zero"}}
    rewrite_config(folder, label=label, recipe=recipe, **({"axes": axes} if axes else {}))
    assert collect(sweep, tmp_path).runs["size"].tolist() == [size]


def test_a_family_without_blocks_patches_and_heads_is_collected(sweep, tmp_path):
    folder = write_run(sweep, "S/4")
    recipe = config("S/4")["recipe"] | {"model": {"name": "UNet-64"}}
    rewrite_config(folder, label="U-Net/64", recipe=recipe)
    (folder / "model.json").write_text(json.dumps({"family": "U-Net", "params": 10, "gmacs": 2.0}))
    write_run(sweep, "B/4")
    collected = collect(sweep, tmp_path)
    for tables in (collected, load(tmp_path)):
        row = tables.runs.set_index("run").loc["s40"]
        assert (row["family"], row["size"], row["block"], row["params"]) == ("U-Net", "64", "", 10)
        assert row[["patch", "hidden_size", "depth", "num_heads"]].isna().all()
        assert tables.train.groupby("family").size().to_dict() == {"DiT": 20, "U-Net": 20}


def test_sizes_that_the_paper_does_not_name_come_last_by_compute(sweep, tmp_path):
    for label in ("S/4", "S/2", "B/4", "L/4"):
        write_run(sweep, label)
    for label, size in (("S/4", "wide"), ("S/2", "")):
        (folder,) = sweep.glob(f"*-{label.replace('/', '').lower()}0")
        recipe = config(label)["recipe"] | {"model": {"name": "DiT", "block": "adaln-zero"}}
        rewrite_config(folder, label="mine", recipe=recipe, axes={"size": size})
    table = summary(collect(sweep, tmp_path))
    assert table["label"].tolist() == ["B/4", "L/4", "mine", "mine"]
    assert table["gmacs"].tolist() == [gmacs_of(label) for label in ("B/4", "L/4", "S/4", "S/2")]


def test_tables_of_earlier_versions_load(sweep, tmp_path):
    """They had neither a family nor more than four columns of the model beside each score."""
    for label in ("S/4", "B/2"):
        folder = write_run(sweep, label)
        write_lines(folder / "other-evals.jsonl", [evaluation(label, 500, guidance_scale=1.5)])
    collected = collect(sweep, tmp_path)
    later = ["family", "model", "hidden_size", "depth", "num_heads", "input_size"]
    for name in TABLES:
        gone = ["family"] if name == "runs" else later
        pd.read_parquet(tmp_path / f"{name}.parquet").drop(columns=gone).to_parquet(tmp_path / f"{name}.parquet")
    path = tmp_path / "other_evals.csv"
    pd.read_csv(path).drop(columns=later).to_csv(path, index=False)
    loaded = load(tmp_path)
    for name in (*TABLES, "other_evals"):
        assert_frame_equal(getattr(loaded, name), getattr(collected, name))


def test_two_folders_of_one_run_are_refused(sweep, tmp_path):
    write_run(sweep, "S/4").rename(sweep / "copy")
    write_run(sweep, "S/4")
    with pytest.raises(ResultsError, match="two folders hold the run s40"):
        collect(sweep, tmp_path)


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(InputError, match="no run folder there"):
        collect(tmp_path / "nowhere", tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", ["runs.parquet", "train.parquet", "evals.parquet", "samples.npz"])
def test_a_missing_table_is_named_with_the_command_that_makes_it(sweep, tmp_path, name):
    write_run(sweep, "S/4")
    collect(sweep, tmp_path / "results")
    (tmp_path / "results" / name).unlink()
    with pytest.raises(ResultsError, match=f"{name} is missing; `ditbench collect RUNS/SWEEP --out "):
        load(tmp_path / "results")


def test_a_damaged_table_is_refused(sweep, tmp_path):
    write_run(sweep, "S/4")
    collect(sweep, tmp_path)
    (tmp_path / "evals.parquet").write_bytes(b"PAR1")
    with pytest.raises(ResultsError, match=r"evals\.parquet: not a whole parquet file"):
        load(tmp_path)


OTHER_VALUES = {
    "weights": "raw",
    "sampler": "ddim",
    "sampling_steps": 50,
    "network_calls": 499,
    "clip_denoised": False,
    "guidance_scale": 1.5,
    "guidance_channels": 3,
    "guidance_interval": "200 to 800",
    "guide": "step 500",
    "decoder": "ft-mse",
    "num_samples": 5000,
    "labels": "uniform",
    "reference": "another",
    "extractor": "inception",
    "kid_subset_size": 50,
    "best_of": 12,
}


def test_every_key_has_its_comparison_tested():
    assert tuple(OTHER_VALUES) == evaluation_keys


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_scores_that_differ_in_a_key_are_not_comparable(sweep, tmp_path, name):
    rows = [evaluation("S/4", 500), evaluation("S/4", 500, **{name: OTHER_VALUES[name]})]
    write_lines(write_run(sweep, "S/4") / "evals.jsonl", rows)
    tables = collect(sweep, tmp_path)
    with pytest.raises(ResultsError, match=f"differ in {name}: "):
        comparable(tables.evals)
    with pytest.raises(ResultsError, match=f"differ in {name}: "):
        summary(tables)
    comparable(tables.evals.head(1))


def test_summary_is_ordered_by_seed_size_and_patch(sweep, tmp_path):
    for seed in (1, 0):
        for label in reversed(LABELS):
            write_run(sweep, label, seed)
    table = summary(collect(sweep, tmp_path))
    assert table["label"].tolist() == LABELS * 2
    assert table["seed"].tolist() == [0] * 12 + [1] * 12
    assert table["step"].unique().tolist() == [2000]
    assert table["fid"].tolist() == [fid_of(label, 2000, seed) for seed in (0, 1) for label in LABELS]
    assert table["loss"].tolist() == [1.1 / 2000**0.25] * 24
    assert table["precision"].tolist() == [0.7] * 24


def test_correlations_of_the_papers_models():
    """The paper's Table 4 in the form of an evals table: FID falls in every neighbouring pair but one."""
    models = published("dit_table4").query("image_size == 256 and block == 'adaln-zero' and train_steps_k == 400")
    evals = pd.DataFrame([evaluation("S/4", 400_000) for _ in range(len(models))])
    labels = models["model"].str.removeprefix("DiT-").tolist()
    evals = evals.assign(
        best_of=None,
        seed=0,
        label="free text",
        family="DiT",
        model=models["model"].tolist(),
        hidden_size=None,
        depth=None,
        patch_frames=None,
        num_heads=None,
        input_size=32,
        size=[label.split("/")[0] for label in labels],
        patch=[int(label.split("/")[1]) for label in labels],
        block="adaln-zero",
        gmacs=models["gmacs"].tolist(),
        fid=models["fid50k"].tolist(),
    )
    (row,) = correlations(evals).to_dict("records")
    assert (row["seed"], row["step"], row["num_models"]) == (0, 400_000, 12)
    assert round(row["r"], 3) == -0.930
    assert (round(row["coefficient"], 1), round(row["exponent"], 3)) == (137.8, -0.365)
    assert (row["patch_pairs_right"], row["patch_pairs"]) == (8, 8)
    assert (row["size_pairs_right"], row["size_pairs"]) == (9, 9)
    worse = evals.assign(fid=evals["fid"].where(evals["model"] != "DiT-L/4", 200.0))
    (row,) = correlations(worse).to_dict("records")
    assert (row["patch_pairs_right"], row["size_pairs_right"]) == (7, 8)


def test_correlations_are_written_for_each_seed_and_step(sweep, tmp_path):
    for label in ("S/4", "S/2", "B/4"):
        write_run(sweep, label, seed=0)
    for label in ("S/4", "S/2"):
        write_run(sweep, label, seed=1)
    collect(sweep, tmp_path)
    table = pd.read_csv(tmp_path / "correlations.csv")
    assert table["seed"].tolist() == [0] * 4
    assert table["step"].tolist() == list(STEPS)


def test_correlations_tell_models_apart_by_what_they_are_not_by_their_label(sweep, tmp_path):
    for label in ("S/4", "S/2", "B/4"):
        model = {"name": "DiT", "block": "adaln-zero"}
        rewrite_config(write_run(sweep, label), label="mine", recipe=config(label)["recipe"] | {"model": model})
    table = correlations(collect(sweep, tmp_path).evals)
    assert table["num_models"].tolist() == [3] * 4
    assert table[["patch_pairs", "size_pairs"]].to_numpy().tolist() == [[0, 0]] * 4  # no size has a name


def test_correlations_never_mix_evaluations(sweep, tmp_path):
    for label in ("S/4", "S/2", "B/4"):
        rows = [evaluation(label, 500), evaluation(label, 500, guidance_scale=1.5, guidance_channels=3)]
        write_lines(write_run(sweep, label) / "evals.jsonl", rows)
    table = correlations(collect(sweep, tmp_path).evals)
    assert table["num_models"].tolist() == [3, 3]
    assert sorted(table["guidance_scale"]) == [1.0, 1.5]


def test_published_tables_have_a_source_in_every_row():
    names = ["dit_table2_256", "dit_table3_512", "dit_table4", "dit_table5_decoder", "unet_table6_gmacs"]
    for name in names:
        assert published(name)["source"].str.contains("arXiv:2212.09748", regex=False).all()
    table = published("dit_table4").query("train_steps_k == 7000")
    assert table["fid50k"].tolist() == [9.62]


def test_an_unknown_published_table_is_refused():
    with pytest.raises(
        ResultsError, match=r"nothing\.csv: no such published table; accepted: chinchilla_epoch, dit_table2_256, "
    ):
        published("nothing")


@pytest.mark.slow  # of what is imported, test_architecture.py and test_light_imports.py tell it too
def test_analysis_needs_neither_torch_nor_the_code_that_made_the_runs():
    code = (
        "import sys, analysis.results.tables, analysis.laws.power_law, analysis.figures;"
        "print(sorted({'torch', 'models', 'bench', 'sweeps', 'matplotlib'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
