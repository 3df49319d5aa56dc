"""The README says what is so: its numbers come from results/, its commands and its example exist."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.results.tables import Tables, correlations, load, summary
from ditbench import app
from sweeps.expand import load_sweep

ROOT = Path(__file__).parents[2]
DOCS = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
README = (ROOT / "README.md").read_text(encoding="utf-8")
DIGITS = ROOT / "results" / "digits"
HELD_OUT = ROOT / "results" / "digits-held-out"
TIMESTEP_INIT = ROOT / "results" / "digits-timestep-init"


def rows_after(heading: str, text: str = README) -> list[list[str]]:
    """The cells of the table whose head begins with `heading`, without its head."""
    table = text.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_correlations_are_the_measured_ones() -> None:
    last: Any = correlations(load(DIGITS).evals).groupby("seed").last()
    expected = [
        [
            str(seed),
            f"{row['r']:.3f}",
            f"{row['patch_pairs_right']} of {row['patch_pairs']}",
            f"{row['size_pairs_right']} of {row['size_pairs']}",
        ]
        for seed, row in last.iterrows()
    ]
    assert rows_after("training seed") == expected
    assert all(row["r"] <= -0.85 for _, row in last.iterrows())
    assert all(row["num_models"] == 12 for _, row in last.iterrows())


def test_distances_are_the_measured_ones() -> None:
    measured: Any = summary(load(DIGITS)).groupby("label")["fid_percent"].mean()
    expected = [[s, *(f"{measured[f'{s}/{p}']:.1f}" for p in (4, 2, 1))] for s in ("S", "B", "L", "XL")]
    assert rows_after("size") == expected


def test_the_classifier_accuracy_is_the_measured_one() -> None:
    accuracy: Any = load(DIGITS).evals["extractor_accuracy"].unique()
    assert len(accuracy) == 1
    assert f"held-out accuracy {100 * accuracy[0]:.1f}%" in " ".join(README.split())


def test_committed_figures_are_of_the_committed_tables() -> None:
    drawn: Any = pd.read_csv(DIGITS / "gflops_vs_fid.csv")
    drawn = drawn[drawn["panel"] == "measured"].set_index("label")["fid"]
    evals: Any = load(DIGITS).evals
    means = evals[evals["step"] == evals["step"].max()].groupby("label")["fid"].mean()
    assert len(drawn) == 12
    for label, fid in drawn.items():
        assert fid == pytest.approx(means[label])


def test_the_study_page_says_what_was_measured() -> None:
    text = (DIGITS / "README.md").read_text(encoding="utf-8")
    tables = load(DIGITS)
    rows: Any = correlations(tables.evals).pivot(index="step", columns="seed", values="r")
    expected = [[str(step), *(f"{r:.3f}" for r in row)] for step, row in rows.iterrows()]
    assert rows_after("step", text) == expected
    runs: Any = tables.runs
    seconds = (pd.to_datetime(runs["finished"]).max() - pd.to_datetime(runs["started"]).min()).total_seconds()
    assert f"The {len(runs)} runs took {seconds // 60:.0f} min {seconds % 60:.0f} s" in text
    assert set(runs["state"]) == {"finished"}
    last = rows.index.max()
    wrong = {
        f"{small}/{patch} against {large}/{patch} on seed {seed}"
        for seed in rows.columns
        for patch in (4, 2, 1)
        for small, large in (("S", "B"), ("B", "L"), ("L", "XL"))
        if fid(tables, last, f"{large}/{patch}", seed) >= fid(tables, last, f"{small}/{patch}", seed)
    }
    flowing = " ".join(text.split())
    assert f"does in {27 - len(wrong)} of 27" in flowing
    assert all(pair in flowing for pair in wrong)


def test_the_held_out_page_and_the_readme_say_what_was_measured() -> None:
    rows: Any = correlations(load(HELD_OUT).evals)
    last = rows[rows["step"] == rows["step"].max()]
    assert last["num_models"].tolist() == [12, 12, 12]
    expected = [
        [
            str(row["seed"]),
            *(f"{r:.3f}" for r in rows[rows["seed"] == row["seed"]]["r"]),
            f"{row['patch_pairs_right']} of {row['patch_pairs']}",
            f"{row['size_pairs_right']} of {row['size_pairs']}",
        ]
        for row in last.to_dict("records")
    ]
    assert rows_after("training seed", (HELD_OUT / "README.md").read_text(encoding="utf-8")) == expected
    tables = load(HELD_OUT)
    assert all(fid(tables, 600, "XL/1", seed) > fid(tables, 600, "L/1", seed) for seed in (3, 4, 5))
    flowing = " ".join(README.split())
    assert f"the correlation is {', '.join(f'{r:.3f}' for r in last['r'])}, with" in flowing
    patches, sizes = (f"{last[f'{k}_pairs_right'].sum()} of {last[f'{k}_pairs'].sum()}" for k in ("patch", "size"))
    assert f"with {patches} patch pairs and {sizes} size pairs in order" in flowing


def fid(tables: Tables, step: int, label: str, seed: int, column: str = "fid") -> float:
    evals: Any = tables.evals
    rows = evals[(evals["step"] == step) & (evals["label"] == label) & (evals["seed"] == seed)]
    return float(rows[column].item())


def test_the_initialisation_page_says_what_was_measured() -> None:
    text = (TIMESTEP_INIT / "README.md").read_text(encoding="utf-8")
    small, large = load(TIMESTEP_INIT), load(DIGITS)
    expected = [
        [str(step), label]
        + [", ".join(f"{fid(t, step, label, seed, 'fid_percent'):.1f}" for t in (small, large)) for seed in (0, 1, 2)]
        for step in (300, 600)
        for label in ("S/4", "S/2", "S/1")
    ]
    assert rows_after("step", text) == expected


def test_the_committed_counts_are_what_the_command_prints() -> None:
    printed = CliRunner().invoke(app, ["flops", "--all", "--format", "csv"])
    assert printed.exit_code == 0
    assert printed.output == (ROOT / "results" / "flops.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["scaling", "blocks", "xl2-long", "xl2-512"])
def test_the_plans_are_what_the_command_prints_and_the_readme_says(name: str) -> None:
    committed = json.loads((ROOT / "results" / "plans" / f"{name}.json").read_text(encoding="utf-8"))
    path = str(ROOT / "sweeps" / f"{name}.yaml")
    printed = CliRunner().invoke(app, ["sweep", "plan", path, "--cluster", "slurm-example", "--json"])
    assert json.loads(printed.output) == committed
    (row,) = [row for row in rows_after("sweep") if row[0].startswith(f"{name}:")]
    assert row[1:] == [
        f"{committed['training_gpu_hours']:,.0f}",
        f"{committed['scoring_gpu_hours']:,.0f}",
        f"{committed['wall_s'] / 86400:.1f}",
        f"{committed['checkpoint_bytes'] / 1e9:,.0f} GB",
        f"{committed['sample_bytes'] / 1e9:,.0f} GB",
    ]


def test_commands_exist() -> None:
    text = README + DOCS
    lines = re.findall(r"^ditbench .*$", text, re.M) + re.findall(r"`(ditbench [^`]*)`", text)
    lines = [command.strip() for line in lines for command in line.split("&&")]
    assert len(lines) > 40
    for line in lines:
        words = shlex.split(line.replace("[--quick]", "--quick"), comments=True)[1:]
        group = 2 if words[0] in ("sweep", "perf") and len(words) > 1 else 1
        result = CliRunner().invoke(app, [*words[:group], "--help"])
        assert result.exit_code == 0, line
        for flag in (word for word in words if word.startswith("--")):
            assert flag in result.output, line


def test_the_sweep_example_expands(tmp_path: Path) -> None:
    example = re.findall(r"```yaml\n(.*?)```", README, re.S)[0]
    (tmp_path / "digits.yaml").write_text((ROOT / "sweeps" / "digits.yaml").read_text())
    (tmp_path / "mine.yaml").write_text(example)
    labels = [recipe.label for recipe in load_sweep(tmp_path / "mine.yaml").recipes]
    assert labels == [f"XL/2 {block}" for block in ("adaln-zero", "adaln", "in-context") for _ in range(2)]


def test_paths_exist() -> None:
    for path in re.findall(r"\]\((?!http)([^)]+)\)", README) + re.findall(
        r"`((?:models|bench|sweeps)/[\w/.-]+)`", README + DOCS
    ):
        assert (ROOT / path).exists(), path


def test_the_disturbed_study_ended_as_its_page_says() -> None:
    folder = ROOT / "results" / "slurm"
    rows: Any = pd.read_csv(folder / "disturbed-digits.csv")
    text = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    assert len(rows) == 12
    assert f"none of the {rows['train_rows'].sum()} rows" in text
    assert rows["rows_missing_or_twice"].sum() == 0
    assert f"all {rows['scores'].sum()} scores equal" in text
    assert rows["scores"].equals(rows["scores_equal_bit_for_bit"])
    for happened in ("requeued", "preempted", "node lost", "process killed", "cancelled, submitted again"):
        assert rows["disturbances"].str.contains(happened).any()
    assert rows["failed_attempts"].max() < 3


def test_the_costs_are_what_their_page_says() -> None:
    folder = ROOT / "results" / "perf"
    text = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    names = ("ranks", "frechet", "latents", "vae")
    tables: list[Any] = [pd.read_csv(folder / f"{name}.csv") for name in names]
    ranks, frechet, latents, vae = tables
    assert f"{100 * ranks['unaccounted'].min():.0f} % to {100 * ranks['unaccounted'].max():.0f} % more" in text
    sqrtm, fidelity = frechet["sqrtm_times_ours"][0], frechet["torch_fidelity_times_ours"][0]
    assert f"1/{sqrtm:.1f} of the time of the matrix root and 1/{fidelity:.1f} of torch-fidelity's" in text
    assert sqrtm >= 5
    assert fidelity > 1
    assert f"scaled at {latents['batch_per_s'][0]:,.0f} a second" in text
    assert latents["batch_per_s"][0] >= 20_000
    fits: Any = pd.read_csv(folder / "fits.csv").set_index("objective")["bootstrap_s"]
    assert f"{fits['logs']:.1f} s by least squares, {fits['log-huber']:.1f} s by the log-Huber loss" in text
    collect, figures = (pd.read_csv(folder / f"{name}.csv").loc[0] for name in ("collect", "figures"))
    assert (collect["runs"], collect["rows_a_run"]) == (1000, 1000)
    assert f"in {collect['median_s']:.1f} s ({collect['cpu_s']:.1f} s of processor time)" in text
    drawn = f"The {figures['figures']:.0f} figures of the published tables are drawn in {figures['median_s']:.1f} s"
    assert f"{drawn} ({figures['cpu_s']:.1f} s)" in text
    for share in ("encode_share", "decode_share"):
        assert f"{100 * vae[share][0]:.1f} %" in text


def test_the_predictions_are_those_of_the_committed_fits() -> None:
    folder = ROOT / "results" / "fits"
    held_out = json.loads((folder / "published.json").read_text(encoding="utf-8"))["held_out"]
    rows = rows_after("law")
    forms = {"A C^-alpha T^-gamma": "tokens", "A C^-alpha": "power"}
    models = {"11 models": 11, "the 3 of patch 2": 3}
    for law, fitted_to, predicted, of_law, of_run in rows:
        (found,) = [
            entry for entry in held_out if (entry["form"], entry["num_rows_fitted"]) == (forms[law], models[fitted_to])
        ]
        (model,) = found["models"]
        interval, new_run = model["prediction"]["law"], model["prediction"]["new_run"]
        assert predicted == f"{interval['estimate']:.2f} ({100 * model['relative_error']:+.1f} %)"
        missed = "" if model["truth_inside_law"] else ", missed"
        assert of_law == f"{interval['low']:.2f} to {interval['high']:.2f}{missed}"
        assert of_run == f"{new_run['low']:.2f} to {new_run['high']:.2f}"
        assert model["truth_inside_new_run"]
    assert len(rows) == 3


def test_the_digits_law_is_what_its_page_says() -> None:
    folder = ROOT / "results" / "fits"
    text = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    held_out = json.loads((folder / "digits.json").read_text(encoding="utf-8"))["held_out"]
    (model,) = next(entry for entry in held_out if entry["form"] == "tokens")["models"]
    law = model["prediction"]["law"]
    predicted = f"{law['estimate']:.1f} ({law['low']:.1f} to {law['high']:.1f})"
    assert f"predicted at {predicted} and scores {model['truth']:.1f}: inside" in text
    assert model["truth_inside_law"]
