"""Forward passes of guided samples by samplers of continuous processes: as many as plans, rows and files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import ditbench
from recipes import recipe as with_keys
from runs import StudyFolder, finished
from torch import Tensor, nn

from bench.data.decoders import Pixels
from bench.flops import forward_gmacs
from bench.recipe import Recipe
from bench.run import build_model
from bench.sample import Sampling, sample
from bench.samplers import NetworkCalls, network_calls
from bench.samplers.guide import forward_passes

CPU, BATCH = torch.device("cpu"), 3
# Of times from 1 (noise) to 0 (data) in 4 steps: 1, 3/4, 1/2, 1/4; heun calls at both ends of each, and sde's last step
# begins at 0.04.
GUIDED = {
    ("euler", None): (4, 4),
    ("euler", (0.4, 0.8)): (4, 2),
    ("heun", None): (8, 8),
    ("heun", (0.4, 0.8)): (8, 4),
    ("heun", (0.0, 0.1)): (8, 1),
    ("sde", None): (4, 4),
    ("sde", (0.4, 1.0)): (4, 2),
    ("sde", (0.0, 0.05)): (4, 1),
    ("dpm-solver++", (0.4, 1.0)): (4, 3),
    ("unipc", (0.4, 1.0)): (4, 3),
}


def flow(**evaluation: Any) -> Recipe:
    keys = {f"evaluation.{key}": value for key, value in evaluation.items()}
    return with_keys({"diffusion.objective": "flow", "model.learn_sigma": False, **keys})


def counted(model: nn.Module) -> list[int]:
    """Rows that each of its calls is given."""
    rows: list[int] = []

    def count(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        rows.append(len(args[0]))

    embedder: Any = model.x_embedder
    embedder.register_forward_pre_hook(count)
    return rows


@pytest.mark.parametrize("by_guide", [False, True])
@pytest.mark.parametrize(("sampler", "interval"), GUIDED)
def test_calls_are_counted_as_they_are_made(sampler: str, interval: tuple[float, float] | None, by_guide: bool) -> None:
    given = {"sampler": sampler, "guidance_scale": 2.0, "guidance_channels": None, "guidance_interval": interval}
    recipe = flow(**given, sampling_steps=4, guide_step=6 if by_guide else None)
    evaluation, calls = recipe.evaluation, NetworkCalls(*GUIDED[sampler, interval])
    assert network_calls(evaluation, recipe.diffusion) == calls
    model, guide = build_model(recipe, CPU).eval(), build_model(recipe, CPU).eval()
    rows, its_rows = counted(model), counted(guide)
    sample(model, Sampling.of(recipe), Pixels(), 0, BATCH, CPU, "fp32", guide if by_guide else None)
    assert sum(its_rows) == BATCH * calls.guided * by_guide
    assert sum(rows) == BATCH * (calls.sampler + calls.guided * (not by_guide))
    assert forward_passes(evaluation, recipe.diffusion, 1.0) == calls.sampler + calls.guided


@pytest.mark.parametrize("sampler", ["heun", "sde"])
def test_files_and_rows_say_what_guided_samples_cost(study: StudyFolder, tmp_path: Path, sampler: str) -> None:
    """By a run's own earlier step: of the recipe, and of the command on the same run."""
    given = {"sampler": sampler, "guidance_scale": 2.0, "guidance_channels": 1, "guidance_interval": [0.4, 1]}
    recipe = flow(**given, sampling_steps=4, guide_step=6, num_samples=20)
    folder = finished(recipe, study("run"))
    row = json.loads((folder / "evals.jsonl").read_text().splitlines()[-1])
    how = ("--sampler", sampler, "--sampling-steps", 4, "--clip-denoised", "--num-samples", 20)
    guided = ("--guidance-scale", 2, "--guidance-channels", 1, "--guidance-interval", 0.4, 1, "--guide-step", 6)
    assert ditbench("sample", folder, "--out", tmp_path / "x.npy", *how, *guided).status == 0
    said = json.loads((tmp_path / "x.npy.json").read_text())
    calls = network_calls(recipe.evaluation, recipe.diffusion)
    for one in (row, said):
        assert one["network_calls"] == calls.sampler
        assert one["sampling_gmacs"] == pytest.approx(sum(calls) * forward_gmacs(recipe.model), rel=1e-12)
    assert (tmp_path / "x.npy").read_bytes() == (folder / "samples/step-00000012.npy").read_bytes()
