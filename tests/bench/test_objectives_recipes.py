"""Objectives in recipes: what is refused, in one line with the keys; ids; and runs that resume bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from recipes import content, recipe
from trainings import CPU, assert_same, trainer_of

from bench.data.decoders import Pixels
from bench.data.digits import Digits
from bench.errors import InputError
from bench.files import checkpoint, jsonl
from bench.recipe import parse_recipe
from bench.run import build_model
from bench.sample import Sampling, sample

CONTINUOUS = {"evaluation.sampler": "euler"}
FLOW = {**CONTINUOUS, "diffusion.objective": "flow"}
EDM = {**CONTINUOUS, "diffusion.objective": "edm"}


def keys(options: dict[str, Any]) -> dict[str, Any]:
    return {f"diffusion.{key}": value for key, value in options.items()}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (keys({"schedule": "sqrt"}), ["diffusion.schedule", "'linear' or 'cosine'", "sqrt"]),
        (keys({"weighting": "min_snr"}), ["diffusion.weighting", "'none', 'min-snr' or 'p2'", "min_snr"]),
        (keys({"prediction": "v"}), ["diffusion.prediction", "'noise', 'x0' or 'velocity'"]),
        (keys({"min_snr_gamma": 2.0}), ["diffusion.min_snr_gamma: 2", "diffusion.weighting is none"]),
        (keys({"p2_gamma": 2.0, "weighting": "min-snr"}), ["diffusion.p2_gamma: 2", "diffusion.weighting is min-snr"]),
        (keys({"min_snr_gamma": 0.0, "weighting": "min-snr"}), ["diffusion.min_snr_gamma", "greater than 0"]),
        (keys({"timesteps": 1, "schedule": "cosine"}), ["diffusion.timesteps: 1", "at least 2"]),
        (keys({"timesteps": 10**9}), ["diffusion.timesteps: 1000000000", "100000"]),
        ({**FLOW, **keys({"path": "cosine"})}, ["diffusion.path", "'linear' or 'gvp'"]),
        ({**FLOW, **keys({"prediction": "score"})}, ["diffusion.prediction", "'noise', 'x0' or 'velocity'"]),
        ({**FLOW, **keys({"timesteps": 1000})}, ["diffusion.timesteps: unknown key", "path, prediction, loss, times"]),
        ({**FLOW, **keys({"time_mean": 0.8})}, ["diffusion.time_mean: 0.8", "diffusion.times is uniform"]),
        ({**FLOW, **keys({"time_std": 0.8})}, ["diffusion.time_std: 0.8", "diffusion.times is uniform"]),
        ({**FLOW, **keys({"times": "logit-normal", "time_std": 0.0})}, ["diffusion.time_std", "greater than 0"]),
        ({**FLOW, **keys({"shift": -1.0})}, ["diffusion.shift", "greater than or equal to 0.001"]),
        ({**FLOW, **keys({"shift": float("nan")})}, ["diffusion.shift", "finite"]),
        ({**FLOW, **keys({"time_scale": 0})}, ["diffusion.time_scale", "greater than 0"]),
        ({**FLOW, **keys({"least_denominator": 0.1})}, ["diffusion.least_denominator: 0.1", "diffusion.loss"]),
        (
            {**FLOW, **keys({"prediction": "x0"}), "evaluation.sampling_steps": 2000},
            ["evaluation.sampling_steps: 2000", "0.001"],
        ),
        ({"diffusion.objective": "flow"}, ["evaluation.sampler: ddpm", "objective flow", "continuous"]),
        ({"evaluation.sampler": "sde"}, ["evaluation.sampler: sde", "objective iddpm", "discrete"]),
        ({**EDM, **keys({"sigma_min": 2.0, "sigma_max": 1.0})}, ["diffusion.sigma_min: 2", "diffusion.sigma_max, 1"]),
        ({**EDM, **keys({"rho": 0.5})}, ["diffusion.rho", "greater than or equal to 1"]),
        ({**EDM, **keys({"sigma_data": 0})}, ["diffusion.sigma_data", "greater than 0"]),
        ({**EDM, **keys({"prediction": "x0"})}, ["diffusion.prediction: unknown key", "sigma_data"]),
    ],
)
def test_refused_in_one_line_with_the_keys(changes: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(InputError) as error:
        parse_recipe(content(changes), "recipe.yaml")
    (line,) = str(error.value).splitlines()
    assert line.startswith("recipe.yaml: ")
    for part in said:
        assert part in line


@pytest.mark.parametrize(
    ("base", "spelled_out"),
    [
        ({}, {"schedule": "linear", "weighting": "none", "min_snr_gamma": 5, "p2_gamma": 1}),
        ({"diffusion.weighting": "min-snr"}, {"min_snr_gamma": 5}),
        (FLOW, {"loss": "velocity", "shift": 1, "time_scale": 1, "network_time": "noise-at-1"}),
        (FLOW, {"loss": None, "time_mean": 0, "time_std": 1, "least_denominator": 0.05}),
        ({**FLOW, "diffusion.prediction": "x0"}, {"loss": "x0"}),
        (EDM, {"sigma_data": 0.5, "sigma_max": 80, "rho": 7}),
    ],
)
def test_a_default_that_is_spelled_out_is_the_same_recipe(base: dict[str, Any], spelled_out: dict[str, Any]) -> None:
    assert recipe({**base, **keys(spelled_out)}).id == recipe(base).id


def test_every_choice_is_another_recipe() -> None:
    choices = [
        {},
        FLOW,
        EDM,
        *({**FLOW, **keys({"prediction": prediction})} for prediction in ("x0", "noise")),
        *({**FLOW, **keys({"loss": loss})} for loss in ("x0", "noise")),
        {**FLOW, **keys({"path": "gvp"})},
        {**FLOW, **keys({"times": "logit-normal"})},
        {**FLOW, **keys({"times": "logit-normal", "time_mean": 0.8})},
        {**FLOW, **keys({"shift": 3})},
        {**FLOW, **keys({"network_time": "data-at-1"})},
        {**FLOW, **keys({"time_scale": 1000})},
        {**EDM, **keys({"p_mean": -0.4})},
        {**EDM, **keys({"time_scale": 1000})},
        *(keys({"prediction": prediction}) for prediction in ("x0", "velocity")),
        *(keys({"weighting": weighting}) for weighting in ("min-snr", "p2")),
        keys({"schedule": "cosine"}),
    ]
    recipes = [recipe(choice) for choice in choices]
    assert len({each.id for each in recipes}) == len({each.diffusion.id for each in recipes}) == len(choices)


OBJECTIVES = {
    "cosine": keys({"schedule": "cosine"}),
    "x0, min-snr": keys({"prediction": "x0", "weighting": "min-snr"}),
    "velocity, p2": keys({"prediction": "velocity", "weighting": "p2"}),
    "flow": FLOW,
    "flow as JiT": {
        **FLOW,
        **keys({"prediction": "x0", "loss": "velocity", "times": "logit-normal", "time_mean": 0.8, "time_std": 0.8}),
    },
    "flow as SiT": {**FLOW, **keys({"path": "gvp", "network_time": "data-at-1"})},
    "flow of noise": {**FLOW, **keys({"prediction": "noise", "shift": 2})},
    "edm": EDM,
}


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits(CPU)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_resumed_equals_uninterrupted(name: str, digits: Digits, tmp_path: Path) -> None:
    """As in `test_train`, stopped past a checkpoint: bit for bit the same, and no row is missing."""
    trained = recipe({**OBJECTIVES[name], "train.steps": 8})

    def run(folder: Path, until: int) -> None:
        folder.mkdir(exist_ok=True)
        trainer = trainer_of(trained, folder, dataset=digits)
        trainer.resume(at_most=8)
        trainer.train_until(until)

    run(tmp_path / "whole", 8)
    run(tmp_path / "parts", 5)
    torch.rand(7)  # the global generator's state must not matter
    run(tmp_path / "parts", 8)
    files = [tmp_path / folder / "checkpoints" / "state-00000008.safetensors" for folder in ("whole", "parts")]
    whole, parts = (checkpoint.load_tensors(file)[0] for file in files)
    assert_same(whole, parts)
    rows = [
        [{key: value for key, value in row.items() if key != "images_per_s"} for row in jsonl.read(tmp_path / folder)]
        for folder in ("whole/train.jsonl", "parts/train.jsonl")
    ]
    assert rows[0] == rows[1]
    assert [row["step"] for row in rows[0]] == [2, 4, 6, 8]


@pytest.mark.parametrize("name", ["velocity, p2", "flow", "flow as JiT", "flow as SiT", "edm"])
def test_after_a_few_steps_samples_are_bright_where_digits_are(name: str, digits: Digits, tmp_path: Path) -> None:
    """Training and sampling agree on times and signs: otherwise they drive x elsewhere."""
    changes = {"train.steps": 80, "train.learning_rate": 5e-3, "train.log_every": 80, "train.save_every": 80}
    trained = recipe({**OBJECTIVES[name], **changes, "evaluation.sampling_steps": 10})
    trainer = trainer_of(trained, tmp_path, dataset=digits)
    trainer.train_until(80)
    model = build_model(trained, CPU)
    model.load_state_dict(trainer.state_dict())
    images = sample(model.eval(), Sampling.of(trained), Pixels(), 0, 60, CPU, "fp32").double()
    ours, theirs = images.mean(0).flatten(), digits.examples()[0].double().mean(0).flatten()
    assert torch.corrcoef(torch.stack([ours, theirs]))[0, 1] > 0.8
