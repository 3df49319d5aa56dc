"""Training with the DiT's options: the loss falls, and a resumed training is the same bit for bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from recipes import tiny
from trainings import assert_same

from bench.data.digits import Digits
from bench.files import checkpoint, jsonl
from bench.parallel import Parallel, Precision
from bench.recipe import Recipe
from bench.run import build_trainer
from bench.train import Trainer

DIGITS = Digits(torch.device("cpu"))
STEPS = 24
OPTIONS: dict[str, dict[str, Any]] = {
    "qk-norm": {"qk_norm": True},
    "rms": {"norm": "rms"},
    "swiglu": {"mlp": "swiglu"},
    "rotary": {"positions": "rotary"},
    "bottleneck": {"patch_bottleneck": 4},
    "class-tokens": {"depth": 2, "class_tokens": 3, "class_tokens_start": 1},
    "everything": {
        "depth": 2, "qk_norm": True, "norm": "rms", "mlp": "swiglu", "positions": "both", "patch_bottleneck": 4,
        "class_tokens": 3, "class_tokens_start": 1,
    },
}  # fmt: skip


def trainer(recipe: Recipe, folder: Path, precision: Precision = "fp32") -> Trainer:
    folder.mkdir(exist_ok=True)
    return build_trainer(recipe, DIGITS, folder, 0.5, Parallel(precision=precision))


def state(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load_tensors(folder / "checkpoints" / f"state-{STEPS:08d}.safetensors")[0]


@pytest.mark.parametrize("name", OPTIONS)
def test_the_loss_falls_and_resumed_equals_uninterrupted(name: str, tmp_path: Path) -> None:
    recipe = tiny(model=OPTIONS[name], train={"steps": STEPS, "learning_rate": 1e-2, "checkpoint_steps": []})
    whole = trainer(recipe, tmp_path / "whole")
    fixed = {name: p.clone() for name, p in whole.model.named_parameters() if not p.requires_grad}
    whole.train_until(STEPS)
    losses = [row["loss"] for row in jsonl.read(tmp_path / "whole" / "train.jsonl")]
    assert all(map(math.isfinite, losses))
    assert sum(losses[-3:]) < 0.95 * sum(losses[:3])
    assert fixed
    assert all(torch.equal(dict(whole.model.named_parameters())[name], table) for name, table in fixed.items())
    trainer(recipe, tmp_path / "parts").train_until(10)
    torch.rand(7)
    resumed = trainer(recipe, tmp_path / "parts")
    resumed.resume(at_most=STEPS)
    assert resumed.step == 8
    resumed.train_until(STEPS)
    assert_same(state(tmp_path / "whole"), state(tmp_path / "parts"))
    assert resumed.state_dict().keys() == resumed.model.state_dict().keys()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("options", [{"qk_norm": True}, {"qk_norm": True, "norm": "rms"}, OPTIONS["everything"]])
def test_bf16_trains_as_fp32_does(options: dict[str, Any], tmp_path: Path) -> None:
    """Norms compute in float32, attention in bf16, whatever norms and rotations hand to it."""
    recipe = tiny(model=options, train={"steps": STEPS, "learning_rate": 1e-2, "checkpoint_steps": []})
    losses = {}
    for precision in ("fp32", "bf16"):
        trainer(recipe, tmp_path / precision, precision).train_until(STEPS)
        losses[precision] = [row["loss"] for row in jsonl.read(tmp_path / precision / "train.jsonl")]
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
