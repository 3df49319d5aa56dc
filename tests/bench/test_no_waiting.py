"""A training step never waits for its device. Here the device is torch's "meta", whose tensors have no data: whatever
needs a value, or copies one to the host, cannot be computed. On CUDA the same steps run under its own check."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from recipes import recipe
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import bench.parallel
import bench.train
from bench.device import PLAIN, Modes
from bench.objectives.iddpm import IDDPM
from bench.parallel import Parallel
from bench.randomness import generator
from bench.recipe import Recipe
from bench.run import build_trainer
from bench.train import Trainer

META = torch.device("meta")


class MetaGenerator(torch.Generator):
    """torch has none for the device: one of the CPU that says it is there."""

    device = META


class NothingIsWaitedFor(TorchDispatchMode):
    """Fails where a copy to the device is waited for: one that is not asked to be `non_blocking`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        device, waits = given.get("device"), not given.get("non_blocking", False)
        if func.name() == "aten::_to_copy":
            assert not (device == META and args[0].device.type == "cpu" and waits), "a copy to the device is waited for"
        if func.name() == "aten::copy_":
            waits = not (given.get("non_blocking") or (len(args) > 2 and args[2]))
            assert args[0].device == args[1].device or not waits, "a copy to the device is waited for"
        return func(*args, **given)


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train there: in what torch has for accelerators alone, meta counts as one."""

    def drawn_from(seed: int, stream: Any, index: int, device: Any = "cpu") -> torch.Generator:
        of_cpu = generator(seed, stream, index)
        return MetaGenerator().manual_seed(of_cpu.initial_seed()) if device == META else of_cpu

    monkeypatch.setattr(bench.train, "generator", drawn_from)
    monkeypatch.setattr(bench.parallel, "autocast", lambda *given, **others: nullcontext())
    for module, kind in (("torch.utils._foreach_utils", "foreach"), ("torch.optim.optimizer", "fused")):
        monkeypatch.setattr(sys.modules[module], f"_get_{kind}_kernels_supported_devices", lambda: ["meta"])


def begun(wanted: Recipe, folder: Path, device: torch.device, modes: Modes = PLAIN) -> Trainer:
    """A trainer after its first step, which makes tables and permutations."""
    folder.mkdir(exist_ok=True)
    data = wanted.data.load(device)
    trainer = build_trainer(wanted, data, folder, 0.5, Parallel(device, modes=modes), micro_batches=2)
    trainer.take_step()
    return trainer


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped": {"train.clip_grad_norm": 0.5, "train.warmup_steps": 3},
    "averages": {"train.ema_decays": [0.5, 0], "train.ema_stds": [0.05, 0.1]},
    "skipped": {"train.non_finite": "skip"},
    "flow": {"diffusion.objective": "flow", "evaluation.sampler": "euler"},
    "edm": {"diffusion.objective": "edm", "evaluation.sampler": "euler", "model.learn_sigma": False},
    "captions": {
        **{"data.name": "digits-captions", "model.caption_tokens": 6, "model.caption_channels": 32},
        **{"model.block": "pixart", "model.depth": 2, "model.drop_path": 0.5},
    },
    "layers": {"model.positions": "both", "model.qk_norm": True, "model.norm": "rms", "model.class_tokens": 2},
}


@pytest.mark.parametrize("modes", [PLAIN, Modes(checkpoint_activations=True)], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("case", CASES)
def test_no_step_waits_for_the_device(case: str, modes: Modes, tmp_path: Path, on_meta: None) -> None:
    trainer = begun(recipe(CASES[case]), tmp_path, META, modes)
    with NothingIsWaitedFor():
        for _ in range(3):
            trainer.take_step()
    assert trainer.step == 4


def _item(losses: Tensor) -> Tensor:
    return losses * (1 if losses.mean().item() > 0 else -1)


def _branch(losses: Tensor) -> Tensor:
    return losses if losses.mean() > 0 else -losses


def _copy_to_the_host(losses: Tensor) -> Tensor:
    return losses * losses.detach().cpu().mean()


def _copy_to_the_device(losses: Tensor) -> Tensor:
    return losses * torch.ones(len(losses)).to(losses.device)


def _positions_of_what_is_true(losses: Tensor) -> Tensor:
    return losses[losses > 0]


WAITING = (_item, _branch, _copy_to_the_host, _copy_to_the_device, _positions_of_what_is_true)


@pytest.mark.parametrize("waits", WAITING)
def test_a_step_that_waits_is_found_out(
    waits: Callable[[Tensor], Tensor], tmp_path: Path, on_meta: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = begun(recipe(), tmp_path, META)
    losses = IDDPM.losses

    def watching(self: IDDPM, network: nn.Module, *batch: Any) -> dict[str, Tensor]:
        found = losses(self, network, *batch)
        return {**found, "loss": waits(found["loss"])}

    monkeypatch.setattr(IDDPM, "losses", watching)
    with pytest.raises((AssertionError, RuntimeError)), NothingIsWaitedFor():
        trainer.take_step()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", CASES)
def test_cuda_finds_nothing_that_waits_either(case: str, tmp_path: Path) -> None:
    trainer = begun(recipe(CASES[case]), tmp_path, torch.device("cuda"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.take_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
