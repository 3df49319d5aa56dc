"""Training under muP: rates of single parameters, resuming, ids, and activations that do not depend on the width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import ditbench
from recipes import content, recipe
from torch import nn
from trainings import assert_same, trained, trainer_of

from bench.errors import InputError
from bench.recipe import parse_recipe
from bench.recipe.training import TrainConfig
from bench.schema import dump_yaml
from bench.training.coordinates import coordinates
from bench.training.optimizer import Optimizer
from models.diffusers_weights import check_held_by_diffusers

MUP: dict[str, Any] = {"model.parametrization": "mup", "model.base_width": 8}  # half of the tiny recipe's


class Weights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slow = nn.Parameter(torch.tensor([3.0]))
        self.plain = nn.Parameter(torch.tensor([3.0]))
        self.rate_multipliers = {"slow": 0.25}


def test_a_parameter_learns_at_its_own_rate_and_decays_at_everybodys() -> None:
    """Of equal gradients, Adam's step is the rate whatever their size; without any, all that is left is the decay."""
    model = Weights()
    optimizer = Optimizer(model, TrainConfig(steps=10, learning_rate=0.4, warmup_steps=2))
    for parameter in model.parameters():
        parameter.grad = torch.ones(1)
    optimizer.update(0, optimizer.gradient_norm())
    assert (model.slow.item(), model.plain.item()) == pytest.approx((3 - 0.05, 3 - 0.2), rel=1e-5)
    model = Weights()
    optimizer = Optimizer(model, TrainConfig(steps=10, learning_rate=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros(1)
    optimizer.update(0, optimizer.gradient_norm())
    assert (model.slow.item(), model.plain.item()) == pytest.approx((3 * 0.95, 3 * 0.95))


def test_a_run_under_mup_resumes_bit_for_bit(tmp_path: Path) -> None:
    under_mup = recipe({**MUP, "train.steps": 8, "train.save_every": 4, "train.checkpoint_steps": []})
    whole = trained(under_mup, tmp_path / "whole", 1)
    (tmp_path / "parts").mkdir()
    first = trainer_of(under_mup, tmp_path / "parts")
    first.train_until(4)
    assert_same(trained(under_mup, tmp_path / "parts", 1), whole)


def test_the_base_width_is_where_mup_has_the_rates_of_sp() -> None:
    at_base = trainer_of(recipe({**MUP, "model.base_width": 16}), Path())
    assert [group["rate"] for group in at_base._optimizer._adamw.param_groups] == [1.0]
    twice = trainer_of(recipe(MUP), Path())
    assert sorted(group["rate"] for group in twice._optimizer._adamw.param_groups) == [0.5, 1.0]


def test_diffusers_cannot_hold_it() -> None:
    arch = recipe({**MUP, "model.in_channels": 1}).model.architecture()
    with pytest.raises(ValueError, match="parametrization: mup; diffusers has sp only"):
        check_held_by_diffusers(type(arch)(**{**vars(arch), "frequency_embedding_size": 256}))


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str, int, int], dict[str, Any]]:
    """Of the tiny recipe with two blocks and the starts of digits.yaml, by parametrization, module, width and step."""
    starts = {"model.label_init_std": 1.0, "model.timestep_init_std": 0.15}
    deeper = recipe({**starts, "model.depth": 2, "train.learning_rate": 4e-3})
    found = coordinates(deeper, [16, 32, 64], steps=3)
    return {(row["parametrization"], row["module"], row["width"], row["step"]): row for row in found}


PARTS = ("x_embedder", "y_embedder", "t_embedder", "blocks.*", "blocks.*.attn", "blocks.*.mlp", "final_layer")


@pytest.mark.parametrize("part", PARTS)
def test_under_mup_twice_the_width_is_moved_as_far(rows: dict[Any, dict[str, Any]], part: str) -> None:
    for narrow, wide in ((16, 32), (32, 64)):
        moved = [rows["mup", part, width, 3]["change"] for width in (narrow, wide)]
        assert 1 / 1.5 < moved[1] / moved[0] < 1.5


def test_under_sp_wider_blocks_are_moved_farther(rows: dict[Any, dict[str, Any]]) -> None:
    for part in ("blocks.*", "blocks.*.attn", "final_layer"):
        assert rows["sp", part, 64, 3]["change"] > 1.7 * rows["sp", part, 16, 3]["change"]


def test_the_check_measures_the_start_too(rows: dict[Any, dict[str, Any]]) -> None:
    assert {key[3] for key in rows} == {0, 1, 2, 3} and {key[2] for key in rows} == {16, 32, 64}
    for (_, part, _, step), row in rows.items():
        # The first step moves the final map alone, which starts at zero, and labels and time move with the third.
        assert row["change"] == 0 if step == 0 else row["change"] > 0 or step < 3, part
    assert all(rows[way, "final_layer", 32, 0]["size"] == 0 for way in ("sp", "mup"))  # starts at zero
    # Labels: |x| of N(0, 1), which sp is given here, has the mean sqrt(2 / pi).
    for way in ("sp", "mup"):
        assert rows[way, "y_embedder", 64, 0]["size"] == pytest.approx(0.798, rel=0.1)


@pytest.mark.parametrize(
    ("widths", "steps", "message"),
    [
        ([16], 2, "--widths: 16; accepted: two or more, each once"),
        ([16, 16], 2, "--widths: 16, 16; accepted: two or more, each once"),
        ([16, 20], 2, "--widths: 20; accepted: multiples of 8"),
        ([0, 16], 2, "--widths: 0; accepted: multiples of 8"),
        ([16, 8 * 10**30], 2, r"--widths: 80+; its network has .* parameters; accepted: at most 1e\+09"),
        ([16, 32], 0, "--steps 0; accepted: 1 to 12"),
        ([16, 32], 13, "--steps 13; accepted: 1 to 12"),
    ],
)
def test_what_the_check_cannot_do_is_refused(widths: list[int], steps: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        coordinates(recipe(), widths, steps)


def test_a_family_without_parametrizations_is_refused() -> None:
    model = {"name": "UNet-S", "channels": 4, "multipliers": [1, 2], "attention": [4], "learn_sigma": True}
    with pytest.raises(InputError, match="UNet-S: its family has no parametrization"):
        coordinates(parse_recipe({**content(), "model": model}, "x"), [16, 32])


def test_a_network_that_diverges_is_refused_with_its_rate() -> None:
    wild = recipe({"train.learning_rate": 1e30})
    with pytest.raises(
        InputError, match=r"not finite after \d steps; accepted: a lower train.learning_rate than 1e\+30"
    ):
        coordinates(wild, [16, 32], steps=3)


def test_the_command_draws_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(dump_yaml(content()))
    done = ditbench("coordinates", "tiny.yaml", "--widths", "16,32", "--steps", "1", "--out", "check.png")
    assert done.status == 0 and "final_layer" in done.out
    assert {path.name for path in tmp_path.glob("check.*")} == {
        f"check.{kind}" for kind in ("png", "pdf", "csv", "txt", "tex")
    }
    for wrong, said in (
        (("tiny.yaml", "--widths", "16;32"), "--widths 16;32: accepted: whole numbers"),
        (("tiny.yaml", "--out", "check"), "--out check: a file that ends in .png or .pdf"),
        (("DiT-S/2",), "DiT-S/2: no recipe; accepted"),
    ):
        refused = ditbench("coordinates", *wrong)
        assert refused.status == 2 and len(refused.err.splitlines()) == 1 and said in refused.err
