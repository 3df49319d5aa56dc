"""Training of PixArt's block: what is dropped is decided by seed, batch and image; the null caption is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from recipes import tiny
from torch import Tensor
from trainings import assert_same, last_state, trained, trainer_of

from bench.files import checkpoint, jsonl
from bench.files.run_folder import weights_path
from bench.objectives import OBJECTIVES
from bench.parallel import Parallel, Ranks
from bench.recipe import Recipe
from bench.train import FOR_NETWORK, BatchSampler

STEPS = 12
CAPTIONED: dict[str, Any] = {"block": "pixart", "depth": 2, "caption_tokens": 6, "caption_channels": 32}


def recipe(model: dict[str, Any], **train: Any) -> Recipe:
    data = "digits-captions" if "caption_tokens" in model else "digits"
    return tiny(model=model, data={"name": data}, train={"steps": STEPS, "learning_rate": 1e-2, **train})


@pytest.mark.parametrize("model", [{"block": "pixart", "depth": 2, "drop_path": 0.5}, {**CAPTIONED, "drop_path": 0.5}])
def test_resumed_equals_uninterrupted_bit_for_bit(model: dict[str, Any], tmp_path: Path) -> None:
    wanted = recipe(model)
    whole = trained(wanted, tmp_path / "whole", 1)
    (tmp_path / "parts").mkdir()
    trainer_of(wanted, tmp_path / "parts").train_until(7)  # saved at step 4 and 6
    torch.rand(7)
    trained(wanted, tmp_path / "parts", 1)
    assert_same(whole, last_state(wanted, tmp_path / "parts"))
    kept = trained(recipe({**model, "drop_path": 0.0}), tmp_path / "kept", 1)
    assert not torch.equal(kept["model.blocks.1.mlp.fc2.weight"], whole["model.blocks.1.mlp.fc2.weight"])


def test_pieces_of_a_batch_drop_what_the_whole_batch_does(tmp_path: Path) -> None:
    wanted = recipe({"block": "pixart", "depth": 2, "drop_path": 0.5}, steps=4, checkpoint_steps=[])
    (whole, pieces) = (trained(wanted, tmp_path / str(n), n) for n in (1, 4))
    for name, value in whole.items():
        assert torch.allclose(value.float(), pieces[name].float(), rtol=1e-3, atol=1e-4), name


def test_ranks_drop_what_one_alone_does_and_what_else_is_drawn_stays() -> None:
    wanted = recipe({})
    objective = OBJECTIVES.find(wanted.diffusion.objective)(wanted.diffusion.options, torch.device("cpu"))
    dataset = wanted.data.load(torch.device("cpu"))

    def drawn(ranks: Ranks, network_draws: int) -> dict[str, Tensor]:
        batches = BatchSampler(
            objective, dataset, wanted.train, 3, Parallel(ranks=ranks), network_draws=network_draws
        )  # fmt: skip
        x0, labels, rest = batches(5)
        assert isinstance(labels, Tensor)
        return {"x0": x0, "labels": labels, **rest}

    alone, without = drawn(Ranks(), 4), drawn(Ranks(), 0)
    assert alone[FOR_NETWORK].shape == (32, 4)
    halves = [drawn(Ranks(rank, 2), 4) for rank in range(2)]
    assert all(torch.equal(torch.cat([half[name] for half in halves]), alone[name]) for name in alone)
    assert all(torch.equal(alone[name], without[name]) for name in without)


def test_the_null_caption_moves_and_is_in_every_state_and_average(tmp_path: Path) -> None:
    wanted = recipe(CAPTIONED, label_dropout=0.5)
    trainer = trainer_of(wanted, tmp_path)
    name = "y_embedder.null_caption"
    start = trainer.model.state_dict()[name].clone()
    trainer.train_until(STEPS)
    end = trainer.model.state_dict()[name]
    assert (end - start).abs().min() > 0
    state = last_state(wanted, tmp_path)
    assert torch.equal(state[f"model.{name}"], end)
    average = checkpoint.load_tensors(weights_path(tmp_path / "checkpoints", STEPS, "ema"))[0][name]
    assert torch.equal(average, state[f"ema.{name}"])
    assert not torch.equal(average, end)
    assert (average - start).abs().min() > 0


@pytest.mark.parametrize("options", [{}, {"window_size": 2, "patch_size": 1, "use_rel_pos": True, "qk_norm": True}])
def test_bf16_trains_as_fp32_does(options: dict[str, Any], tmp_path: Path) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        wanted, folder = recipe({**CAPTIONED, **options}), tmp_path / precision
        folder.mkdir()
        trainer = trainer_of(wanted, folder)
        trainer._parallel = Parallel(precision=precision)
        trainer.train_until(STEPS)
        losses[precision] = [row["loss"] for row in jsonl.read(folder / "train.jsonl")]
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses["fp32"][-1] < losses["fp32"][0]
