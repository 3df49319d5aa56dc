"""Runs and samples that another network guides: whose weights, what rows say, resuming, what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes import recipe as with_keys
from recipes import tiny
from runs import StudyFolder, finished, results, start

from bench.errors import InputError, RunError
from bench.files import jsonl
from bench.files.run_folder import read_config, weights_path
from bench.files.verify_run import verify_run
from bench.flops import forward_gmacs
from bench.recipe import Recipe
from bench.run import run
from bench.samplers.guide import guide_of_recipe, load_guide
from ditbench import main

BY_ITSELF: dict[str, Any] = {"guidance_scale": 3.0, "guidance_channels": None, "guide_step": 6}


def samples(folder: Path, step: int) -> np.ndarray:
    return np.load(folder / f"samples/step-{step:08d}.npy")


def test_a_run_guided_by_its_own_earlier_step(study: StudyFolder) -> None:
    """Without label dropout; at the guide's own step, guidance changes nothing."""
    train = {"label_dropout": 0.0}
    guided, plain = tiny(train=train, evaluation=BY_ITSELF), tiny(train=train)
    folder, other = finished(guided, study("a")), finished(plain, study("b"))
    assert np.array_equal(samples(folder, 6), samples(other, 6))
    assert not np.array_equal(samples(folder, 12), samples(other, 12))
    gmacs = forward_gmacs(guided.model)
    for row in jsonl.read(folder / "evals.jsonl"):
        assert (row["guide"], row["network_calls"], row["guidance_interval"]) == ("step 6", 4, None)
        assert row["sampling_gmacs"] == pytest.approx(gmacs * 8, rel=1e-12)
    for row in jsonl.read(other / "evals.jsonl"):
        assert (row["guide"], row["network_calls"]) == (None, 4)
        assert row["sampling_gmacs"] == gmacs * 4
    assert [problem for _, problems in verify_run(folder) for problem in problems] == []


def test_lost_weights_of_the_guide_are_made_again(study: StudyFolder) -> None:
    recipe = tiny(evaluation=BY_ITSELF)
    whole = results(finished(recipe, study("whole")))
    folder = finished(recipe, study("lost"))
    for lost in (
        weights_path(folder / "checkpoints", 6),
        folder / "finished.json",
        folder / "samples/step-00000012.npy",
    ):
        lost.unlink()
    rows = (folder / "evals.jsonl").read_text().splitlines(keepends=True)
    (folder / "evals.jsonl").write_text(rows[0])
    run(folder, folder.parent)
    again = results(folder)
    assert again["evals.jsonl"] == whole["evals.jsonl"]
    assert again["ema-00000006.safetensors"] == whole["ema-00000006.safetensors"]


def guided_by(guide: Path, **evaluation: Any) -> Recipe:
    section = {"guidance_scale": 3.0, "guidance_channels": None, "guide": str(guide), **evaluation}
    return tiny(model={"depth": 2}, evaluation=section)


def test_a_run_guided_by_a_smaller_one(study: StudyFolder) -> None:
    guide = finished(tiny(), study("small"))
    recipe = guided_by(guide, guide_step=6, guidance_interval=[300, 700])
    folder = finished(recipe, study("large"))
    own, cost = forward_gmacs(recipe.model), forward_gmacs(tiny().model)
    for row in jsonl.read(folder / "evals.jsonl"):
        assert (row["guide"], row["guidance_interval"]) == (f"{tiny().id} step 6", "300 to 700")
        assert row["sampling_gmacs"] == pytest.approx(
            4 * own + 2 * cost, rel=1e-12
        )  # of the times 999, 666, 333, 0, two
    assert [problem for _, problems in verify_run(folder) for problem in problems] == []
    for name in (guide, weights_path(guide / "checkpoints", 12)):  # a run's last step, or one file of it
        recipe = guided_by(name)
        found = guide_of_recipe(recipe, recipe.evaluation, offline=True)
        assert found is not None
        assert (found.id, found.gmacs) == (f"{tiny().id} step 12", cost)
        weights = load_guide(recipe.evaluation, recipe.diffusion, offline=True)
        assert (weights.identity["run"], weights.identity["step"]) == (tiny().id, 12)


@pytest.mark.parametrize(
    ("guide", "said"),
    [
        ({"model.learn_sigma": False}, ["predicts channels 1", "model 2"]),
        ({"diffusion.timesteps": 500}, ["timesteps=500", "timesteps=1000"]),
        ({"train.steps": 11}, ["has no weights of step 11"]),
        (None, ["evaluation.guide"]),
    ],
)
def test_a_guide_that_cannot_be_is_refused_before_training(
    study: StudyFolder, guide: dict[str, Any] | None, said: list[str]
) -> None:
    place = study("guide")
    if guide is not None:
        place = start(changed := with_keys(guide), place)
        if "train.steps" not in guide:
            path = weights_path(place / "checkpoints", changed.train.steps)
            path.parent.mkdir(parents=True)
            path.write_bytes(b"")
    folder = start(guided_by(place), study("large"))
    with pytest.raises(InputError) as error:
        run(folder, folder.parent)
    assert str(error.value).startswith("evaluation.guide")
    assert all(part in str(error.value) for part in said), str(error.value)
    assert not (folder / "train.jsonl").exists()


def test_damaged_weights_of_a_guide_are_named(study: StudyFolder) -> None:
    guide = finished(tiny(), study("small"))
    path = weights_path(guide / "checkpoints", 12)
    path.write_bytes(path.read_bytes()[:-40])
    folder = start(guided_by(guide), study("large"))
    with pytest.raises((InputError, RunError), match="ema-00000012"):
        run(folder, folder.parent)


def test_samples_by_the_command_are_those_of_the_run(
    study: StudyFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def ditbench(*arguments: object, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["ditbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert ended.value.code == status, printed
        return printed.err if status else printed.out

    interval, out = {"guidance_interval": [300, 1000 - 1]}, tmp_path / "out.npy"
    folder = finished(tiny(evaluation={**BY_ITSELF, **interval}), study("a"))
    how = ("--clip-denoised", "--sampling-steps", 4, "--num-samples", 60)
    guided = ("--guidance-scale", 3, "--guidance-channels", 1, "--guidance-interval", 300, 999)
    command = ("sample", folder, "--out", out, *how, *guided, "--guide-step", 6)
    assert "60 samples made" in ditbench(*command)
    assert "60 samples were there" in ditbench(*command)
    assert np.array_equal(np.load(out), samples(folder, 12))
    beside = json.loads((tmp_path / "out.npy.json").read_text())
    (row,) = [row for row in jsonl.read(folder / "evals.jsonl") if row["step"] == 12]
    same = ("guide", "guidance_interval", "network_calls", "sampling_gmacs", "guidance_scale")
    assert [beside[name] for name in same] == [row[name] for name in same]
    by_folder = ("sample", folder, "--out", tmp_path / "same.npy", *how, *guided, "--guide", folder, "--guide-step", 6)
    ditbench(*by_folder)
    assert (tmp_path / "same.npy").read_bytes() == out.read_bytes()
    assert json.loads((tmp_path / "same.npy.json").read_text())["guide"] == "step 6"

    fresh = ("sample", folder, "--out", tmp_path / "x.npy", *how)
    scaled = (*fresh, "--guidance-scale", 3, "--guidance-channels", 1)
    for arguments, said in (
        ((*command, "--guidance-interval", 300, 998), "guidance_interval is '300 to 999' there, '300 to 998' here"),
        ((*fresh, "--guide-step", 6), "--guidance-scale: "),
        ((*fresh, "--guidance-interval", 300, 999), "--guidance-scale: "),
        ((*scaled, "--guidance-interval", 999, 300), "--guidance-interval: 999 to 300"),
        ((*scaled, "--guidance-interval", 0, 1000), "--guidance-interval: 0 to 1000"),
        ((*scaled, "--guide-step", 7), "--guide-step: "),
        ((*scaled, "--step", 6, "--guide-step", 12), "--guide-step: 12 is later than 6"),
        ((*scaled, "--guide", tmp_path / "nowhere"), "--guide: "),
        ((*scaled, "--guide", folder / "checkpoints/ema-00000006.safetensors", "--guide-step", 12), "--guide-step: 12"),
        ((*fresh, "--guidance-scale", 1e30, "--guidance-channels", 1), "--guidance-scale: "),
    ):
        (line,) = ditbench(*arguments, status=2).strip().splitlines()
        assert said in line
    assert not (tmp_path / "x.npy").exists()


def test_a_run_without_label_dropout_is_not_sampled_with_guidance_by_a_null_label(
    study: StudyFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = finished(tiny(train={"label_dropout": 0.0}), study("a"))
    assert read_config(folder).train.label_dropout == 0
    arguments = ["sample", folder, "--out", tmp_path / "x.npy", "--guidance-scale", 2, "--guidance-channels", 1]
    monkeypatch.setattr(sys, "argv", ["ditbench", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2
    assert "--guidance-scale: 2" in line and "train.label_dropout" in line


def test_samples_that_an_earlier_version_began_are_finished(study: StudyFolder) -> None:
    """What is written beside them says neither calls nor interval nor guide."""
    folder = finished(tiny(), study("a"))
    before = results(folder)
    for path in folder.glob("samples/*.json"):
        said = json.loads(path.read_text())
        for name in ("network_calls", "guidance_interval", "guide", "sampling_gmacs"):
            del said[name]
        path.write_text(json.dumps(said))
    (folder / "finished.json").unlink()
    (folder / "evals.jsonl").unlink()
    run(folder, folder.parent)
    assert results(folder) == before
