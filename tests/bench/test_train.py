"""Training: the optimisation itself, resuming, what is logged, and what a damaged checkpoint or loss does."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from batches import batches_of
from recipes import tiny
from sampled import losses as losses_of
from trainings import assert_same

from bench.data.digits import Digits
from bench.errors import RunError
from bench.files import checkpoint, jsonl
from bench.parallel import Parallel, Precision
from bench.recipe import Recipe
from bench.run import build_model, build_trainer
from bench.train import Trainer

CPU = torch.device("cpu")
DIGITS = Digits(CPU)


def trainer(recipe: Recipe, folder: Path, precision: Precision = "fp32") -> Trainer:
    folder.mkdir(exist_ok=True)
    return build_trainer(recipe, DIGITS, folder, 0.5, Parallel(precision=precision))


def state(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return checkpoint.load_tensors(folder / "checkpoints" / f"state-{step:08d}.safetensors")[0]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "images_per_s"} for row in jsonl.read(folder / "train.jsonl")]


def test_training_equals_a_plain_loop(tmp_path: Path) -> None:
    """Fused AdamW, EMA and logged losses against one parameter at a time, written out."""
    recipe = tiny(train={"weight_decay": 0.01, "steps": 6, "checkpoint_steps": []})
    ours = trainer(recipe, tmp_path / "run")
    ours.train_until(6)

    model, batches = build_model(recipe, CPU).train(), batches_of(recipe, DIGITS)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    ema = {name: p.detach().clone() for name, p in parameters.items()}
    first = {name: torch.zeros_like(p) for name, p in parameters.items()}
    second = {name: torch.zeros_like(p) for name, p in parameters.items()}
    losses, lr, decay = [], 1e-3, 0.9
    for step in range(6):
        x0, y, drawn = batches(step)
        loss = losses_of(model, x0, drawn["t"], y, drawn["noise"])["loss"].mean()
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        with torch.no_grad():
            for (name, p), gradient in zip(parameters.items(), gradients, strict=True):
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.999 * second[name] + 0.001 * gradient**2
                unbiased = first[name] / (1 - 0.9 ** (step + 1))
                spread = (second[name] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
                p.mul_(1 - lr * 0.01).sub_(lr * unbiased / spread)
                ema[name] = decay * ema[name] + (1 - decay) * p
    for name, p in ours.model.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(p, parameters[name], atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(ours.state_dict()[name], ema[name], atol=2e-5, rtol=1e-4)
    logged = jsonl.read(tmp_path / "run" / "train.jsonl")
    assert [row["step"] for row in logged] == [2, 4, 6]
    expected = [sum(losses[i : i + 2]) / 2 for i in (0, 2, 4)]
    assert [row["loss"] for row in logged] == pytest.approx(expected, rel=1e-4)
    assert [row["gmacs_spent"] for row in logged] == [0.5 * 3 * 32 * step for step in (2, 4, 6)]


@pytest.mark.parametrize("stop", [4, 5, 6, 8, 11])
def test_resumed_equals_uninterrupted(tmp_path: Path, stop: int) -> None:
    """Stopped at any step, at a checkpoint or past it, the result is the same bit for bit, and no row is missing."""
    recipe = tiny()
    whole = trainer(recipe, tmp_path / "whole")
    whole.train_until(12)
    trainer(recipe, tmp_path / "parts").train_until(stop)
    torch.rand(7)  # the global generator's state must not matter
    resumed = trainer(recipe, tmp_path / "parts")
    resumed.resume(at_most=12)
    assert resumed.step == max(step for step in (0, 4, 6, 8) if step <= stop)
    resumed.train_until(12)
    assert_same(state(tmp_path / "whole", 12), state(tmp_path / "parts", 12))
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")


def test_bf16_also_resumes_to_the_same(tmp_path: Path) -> None:
    recipe = tiny()
    trainer(recipe, tmp_path / "whole", precision="bf16").train_until(12)
    trainer(recipe, tmp_path / "parts", precision="bf16").train_until(8)
    resumed = trainer(recipe, tmp_path / "parts", precision="bf16")
    resumed.resume(at_most=12)
    resumed.train_until(12)
    assert_same(state(tmp_path / "whole", 12), state(tmp_path / "parts", 12))
    trainer(recipe, tmp_path / "fp32").train_until(12)
    fp32, bf16 = state(tmp_path / "fp32", 12), state(tmp_path / "whole", 12)
    assert any(not torch.equal(fp32[name], bf16[name]) for name in fp32), "bf16 changed nothing"


def test_truncated_checkpoint_falls_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = tiny()
    trainer(recipe, tmp_path / "whole").train_until(12)
    trainer(recipe, tmp_path / "parts").train_until(9)
    newest = tmp_path / "parts" / "checkpoints" / "state-00000008.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    resumed = trainer(recipe, tmp_path / "parts")
    with caplog.at_level(logging.WARNING):
        resumed.resume(at_most=12)
    assert resumed.step == 6
    assert "state-00000008" in caplog.text
    resumed.train_until(12)
    assert_same(state(tmp_path / "whole", 12), state(tmp_path / "parts", 12))
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")


def test_seed_decides_and_nothing_else(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(hash(name) % 1000)
        trainer(tiny(seed=seed), tmp_path / name).train_until(12)
    assert_same(state(tmp_path / "a", 12), state(tmp_path / "b", 12))
    a, c = state(tmp_path / "a", 12), state(tmp_path / "c", 12)
    assert not torch.equal(a["model.x_embedder.proj.weight"], c["model.x_embedder.proj.weight"])


def test_initialisation_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    build_model(tiny(), CPU)
    assert torch.equal(before, torch.get_rng_state())


def test_batches_are_epochs_of_permutations() -> None:
    batches = batches_of(tiny(), DIGITS)
    per_epoch = 1797 // 32
    everything = {tuple(x.flatten().tolist()) for x in DIGITS.examples()[0]}
    assert len(everything) > 1700
    seen = [tuple(x.flatten().tolist()) for step in range(per_epoch) for x in batches(step)[0]]
    assert len(seen) == per_epoch * 32
    assert len(set(seen)) >= len(everything) - 1797 % 32
    first, second = batches(0)[0], batches(per_epoch)[0]
    assert not torch.equal(first, second), "the second epoch repeats the first one's order"


def test_batch_is_a_function_of_the_step() -> None:
    forwards, backwards = batches_of(tiny(), DIGITS), batches_of(tiny(), DIGITS)
    steps = [0, 1, 60, 120]
    expected = {step: forwards(step) for step in steps}
    for step in reversed(steps):
        (x0, labels, drawn), (x0_again, labels_again, drawn_again) = expected[step], backwards(step)
        assert torch.equal(x0, x0_again)
        assert torch.equal(labels, labels_again)
        assert_same(drawn, drawn_again)


def test_labels_are_dropped_at_the_given_rate() -> None:
    batches = batches_of(tiny(train={"label_dropout": 0.3}), DIGITS)
    labels = torch.cat([batches(step)[1] for step in range(200)])
    dropped = (labels == 10).double().mean().item()
    assert abs(dropped - 0.3) < 4 * (0.3 * 0.7 / len(labels)) ** 0.5
    t = torch.cat([batches(step)[2]["t"] for step in range(200)])
    assert 0 <= t.min() < 20 and 980 < t.max() <= 999


def test_diverged_loss_stops_with_the_step(tmp_path: Path) -> None:
    recipe = tiny(train={"learning_rate": 1e18, "log_every": 4, "save_every": 2, "checkpoint_steps": []})
    losses = []
    probe = trainer(tiny(train={"learning_rate": 1e18, "log_every": 1, "save_every": 100}), tmp_path / "probe")
    with pytest.raises(RunError):
        probe.train_until(12)
    losses = [row["loss"] for row in jsonl.read(tmp_path / "probe" / "train.jsonl")]
    with pytest.raises(RunError, match=rf"not finite at step {len(losses) + 1};.*learning_rate") as error:
        trainer(recipe, tmp_path / "run").train_until(12)
    assert str(tmp_path / "run") in str(error.value)
    for row in jsonl.read(tmp_path / "run" / "train.jsonl"):
        assert row["step"] <= len(losses)
    found = checkpoint.load_newest_state(tmp_path / "run" / "checkpoints", at_most=12)
    assert found is None or found[0] <= len(losses)


def test_a_loss_that_diverges_at_once_promises_no_checkpoint(tmp_path: Path) -> None:
    run = trainer(tiny(), tmp_path / "run")
    weight = run.model.get_parameter("final_layer.linear.weight")
    weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(RunError, match=r"not finite at step 1;.*no step was saved"):
        run.train_until(12)
    assert checkpoint.load_newest_state(tmp_path / "run" / "checkpoints", at_most=12) is None


def test_a_broken_gradient_is_never_saved(tmp_path: Path) -> None:
    """The loss is still finite at the step whose gradient is not: the weights after it must not become a checkpoint."""
    run = trainer(tiny(train={"log_every": 100}), tmp_path / "run")
    run.train_until(4)
    weight = run.model.get_parameter("final_layer.linear.weight")
    weight.register_hook(lambda gradient: gradient * torch.inf if run.step == 5 else gradient)
    with pytest.raises(RunError, match=r"gradient is not finite at step 6;.*up to step 4 are kept"):
        run.train_until(12)
    found = checkpoint.load_newest_state(tmp_path / "run" / "checkpoints", at_most=12)
    assert found is not None
    assert found[0] == 4
    assert all(tensor.isfinite().all() for tensor in found[1].values())


def test_full_disk_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    run = trainer(tiny(), tmp_path / "run")
    run.train_until(4)
    before = state(tmp_path / "run", 4)
    blocked = tmp_path / "run" / "checkpoints" / "state-00000006.safetensors"
    blocked.mkdir()  # the rename into place fails, as a write to a full disk does
    (blocked / "x").touch()
    with pytest.raises(RunError, match=r"state-00000006.*untouched"):
        run.train_until(6)
    assert_same(before, state(tmp_path / "run", 4))
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))
