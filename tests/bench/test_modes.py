"""Ways to carry out a training step: each trains what plain float32 on one rank does, and resumes bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ranks import on_ranks
from recipes import TINY, recipe, tiny
from runs import StudyFolder, start
from torch import Tensor, nn
from trainings import CPU, assert_equal_but_for_the_order_of_sums, assert_same, last_state, trained, trainer_of

from bench.device import Modes
from bench.errors import InputError
from bench.files import jsonl
from bench.files.checkpoint import load_tensors
from bench.files.run_folder import weights_path
from bench.parallel import Execution, Parallel, Ranks
from bench.recipe import Recipe
from bench.run import build_model, train

CHECKPOINTED, SHARDED, COMPILED = Modes(checkpoint_activations=True), Modes(shard=True), Modes(compile_blocks=True)
AGAIN = Modes(compile_blocks=True, checkpoint_activations=True)
ALL = Modes(compile_blocks=True, checkpoint_activations=True, shard=True)
PIXART: dict[str, Any] = {
    **{"data.name": "digits-captions", "model.caption_tokens": 6, "model.caption_channels": 32},
    **{"model.block": "pixart", "model.depth": 3, "model.drop_path": 0.5},
}
MODELS: dict[str, dict[str, Any]] = {
    "DiT": {"model.depth": 2},
    "PixArt": PIXART,
    "tokens": {"model.depth": 2, "model.block": "in-context", "model.positions": "both", "model.class_tokens": 2},
    "U-ViT": {"model": {"name": "U-ViT", "depth": 3, "hidden_size": 16, "num_heads": 2, "patch_size": 4,
                        "image_size": None, "input_size": 8, "in_channels": 1, "num_classes": 10}},
}  # fmt: skip
UNET = {"name": "UNet-S", "channels": 4, "multipliers": [1, 2], "attention": [4], "learn_sigma": True}


# Activations computed again


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", ["DiT", "PixArt", "tokens"])
def test_activations_that_are_computed_again_change_no_bit(model: str, precision: Any, tmp_path: Path) -> None:
    wanted = recipe(MODELS[model])
    plain = trained(wanted, tmp_path / "plain", 2, precision=precision)
    again = trained(wanted, tmp_path / "again", 2, modes=CHECKPOINTED, precision=precision)
    assert_same(plain, again)


# Shards


def _sharded(ranks: Ranks, wanted: Recipe, folder: Path, modes: Modes = SHARDED, until: int | None = None) -> None:
    folder.mkdir(exist_ok=True)
    trainer = trainer_of(wanted, folder, ranks, micro_batches=2, modes=modes)
    trainer.resume(wanted.train.steps)
    trainer.train_until(until or wanted.train.steps)


EVERYTHING: dict[str, Any] = {
    **{"train.clip_grad_norm": 0.5, "train.non_finite": "skip", "train.ema_decays": [0.5, 0]},
    **{"train.weight_decay": 0.1, "train.decay_matrices_only": True},
}


@pytest.mark.slow
def test_shards_train_as_one_rank_does_and_leave_the_same_files(tmp_path: Path) -> None:
    wanted = recipe({**MODELS["DiT"], **EVERYTHING, "train.checkpoint_steps": [], "train.log_every": 1})
    whole = trained(wanted, tmp_path / "whole", 1)
    reordered = [trained(wanted, tmp_path / f"{pieces}", pieces) for pieces in (2, 4, 8)]
    assert on_ranks(2, _sharded, wanted, tmp_path / "shards") == [None, None]
    found = last_state(wanted, tmp_path / "shards")
    skips = [state.pop("skips") for state in (whole, found, *reordered)]
    assert all(torch.equal(each, skips[0]) for each in skips)
    assert_equal_but_for_the_order_of_sums(whole, reordered, found)


def _weights(wanted: Recipe, folder: Path) -> list[tuple[Any, ...]]:
    """What every file of weights says of itself, and its tensors' names and shapes."""
    files = []
    for name in ("ema", "ema decay=0.5", "raw"):
        tensors, header = load_tensors(weights_path(folder / "checkpoints", wanted.train.steps, name))
        files.append((header | {"sha256": ""}, {key: tuple(tensor.shape) for key, tensor in tensors.items()}))
    return files


@pytest.mark.slow
def test_a_sharded_run_resumes_bit_for_bit_on_as_many_ranks_and_goes_on_without_shards(tmp_path: Path) -> None:
    wanted = recipe({**PIXART, **EVERYTHING})
    whole, parts, alone, plain = (tmp_path / name for name in ("whole", "parts", "alone", "plain"))
    assert on_ranks(2, _sharded, wanted, whole) == [None, None]
    assert on_ranks(2, _sharded, wanted, parts, SHARDED, 7) == [None, None]  # saved at step 4 and 6
    assert on_ranks(2, _sharded, wanted, parts) == [None, None]
    assert_same(last_state(wanted, whole), last_state(wanted, parts))
    trained(wanted, plain, 1)
    assert _weights(wanted, whole) == _weights(wanted, plain)

    assert on_ranks(2, _sharded, wanted, alone, SHARDED, 7) == [None, None]
    trained(wanted, alone, 1)
    for name, tensor in last_state(wanted, whole).items():
        assert torch.allclose(last_state(wanted, alone)[name].float(), tensor.float(), rtol=1e-3, atol=1e-5), name


# Compiled blocks, and all at once


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_compiled_blocks_train_alike_and_resume_bit_for_bit(model: str, tmp_path: Path) -> None:
    wanted = recipe(MODELS[model])
    plain = trained(wanted, tmp_path / "plain", 2)
    compiled = trained(wanted, tmp_path / "compiled", 2, modes=COMPILED)
    assert compiled.keys() == plain.keys()
    assert torch.allclose(compiled["logged"], plain["logged"], rtol=1e-4)
    assert_same(compiled, trained(wanted, tmp_path / "again", 2, modes=AGAIN))
    (tmp_path / "parts").mkdir()
    trainer_of(wanted, tmp_path / "parts", micro_batches=2, modes=COMPILED).train_until(7)
    assert_same(compiled, trained(wanted, tmp_path / "parts", 2, modes=COMPILED))


@pytest.mark.slow
def test_blocks_that_are_alike_are_compiled_once() -> None:
    from torch._dynamo.utils import counters

    model = Parallel(modes=COMPILED).wrap(build_model(recipe({"model.depth": 12}), CPU).train())
    batch = torch.zeros(2, 1, 8, 8), torch.zeros(2), torch.zeros(2, dtype=torch.long)
    counters.clear()
    model(*batch)
    assert counters["stats"]["unique_graphs"] == 1


LONGER: dict[str, Any] = {
    **{"model.depth": 3, "model.hidden_size": 64, "model.patch_size": 2},
    **{"train.steps": 150, "train.checkpoint_steps": [], "train.log_every": 10, "train.save_every": 150},
}


@pytest.mark.slow
def test_every_mode_keeps_to_the_loss_curve_of_fp32(tmp_path: Path) -> None:
    """Rounding apart: 1e-5 of each mean of ten losses on digits; bf16, whose products have 8 bits, 5e-3."""
    wanted = recipe(LONGER)
    plain = trained(wanted, tmp_path / "plain", 1)["logged"][0]
    assert plain[-1] < 0.7 * plain[0]
    curves = {
        "compiled": (trained(wanted, tmp_path / "compiled", 1, modes=COMPILED), 1e-5),
        "bf16": (trained(wanted, tmp_path / "bf16", 1, precision="bf16"), 5e-3),
    }
    for name, modes in {"ranks": AGAIN, "shards": SHARDED, "all": ALL}.items():
        assert on_ranks(2, _sharded, wanted, tmp_path / name, modes) == [None, None]
        curves[name] = last_state(wanted, tmp_path / name), 1e-5
    for name, (state, tolerance) in curves.items():
        off = ((state["logged"][0] - plain) / plain).abs().max().item()
        assert 0 < off < tolerance, (name, off)
    assert torch.equal(trained(wanted, tmp_path / "again", 1, modes=CHECKPOINTED)["logged"][0], plain)


# What is refused, and recorded


class Unruly(nn.Module):
    """Looks at a number of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum().item() > 0 else -x


@pytest.mark.slow
def test_a_block_that_cannot_be_compiled_is_named() -> None:
    network = nn.Sequential()
    network.blocks = nn.ModuleList([Unruly()])
    Parallel(modes=COMPILED).wrap(network)
    with pytest.raises(InputError, match=r"^compile_blocks: Unruly cannot be compiled \(.*\); accepted: false$"):
        network.blocks[0](torch.ones(3))


@pytest.mark.slow
def test_without_a_compiler_that_is_said_in_one_line_and_nothing_is_trained(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    command = [Path(sys.executable).with_name("ditbench"), "run", "tiny.yaml", "--folder", "run", "--compile"]
    nothing = {**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=tmp_path, env=nothing, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert "compile_blocks: torch.compile does not work here" in line
    assert "accepted: false, or a C++ compiler (CXX)" in line
    assert not (tmp_path / "run" / "train.jsonl").exists()


@pytest.mark.parametrize(
    ("modes", "model", "said"),
    [
        (SHARDED, TINY["model"], "shard: true, but DiT is trained by one rank; accepted: false, or more ranks"),
        (COMPILED, UNET, "compile_blocks: true, but UNet-S is not of a family with blocks"),
        (CHECKPOINTED, UNET, "checkpoint_activations: true, but UNet-S is not of a family with blocks"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    modes: Modes, model: dict[str, Any], said: str, study: StudyFolder
) -> None:
    folder = start(recipe({"model": model}), study("a"))
    with pytest.raises(InputError, match=said):
        train(folder, Execution(modes=modes))
    assert not (folder / "train.jsonl").exists()


def test_every_start_says_how_steps_are_carried_out(study: StudyFolder) -> None:
    folder = start(tiny(), study("a"))
    train(folder, Execution(modes=CHECKPOINTED))
    (session,) = jsonl.read(folder / "sessions.jsonl")
    assert {name: session[name] for name in vars(CHECKPOINTED)} == {
        "compile_blocks": False, "checkpoint_activations": True, "shard": False
    }  # fmt: skip
