"""Averages of the weights: what training keeps against sums written out, resuming, and what recipes are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from profiles import profile
from recipes import TINY, recipe, tiny
from torch import Tensor
from trainings import assert_same, last_state, trainer_of

import models
from bench.averages import kept_weights
from bench.averages.power import coefficients
from bench.data.digits import Digits
from bench.errors import InputError
from bench.files.checkpoint import load_state, read_weights
from bench.files.run_folder import weights_path
from bench.recipe import Recipe, parse_recipe
from bench.weights import load_average

CPU = torch.device("cpu")
DIGITS = Digits(CPU)
EVERY_STEP = list(range(1, 13))
STDS = [0.05, 0.1]


def trained(given: Recipe, folder: Path, until: int | None = None) -> Path:
    """The checkpoints of a training, continued if it was begun."""
    folder.mkdir(exist_ok=True)
    trainer = trainer_of(given, folder, dataset=DIGITS)
    trainer.resume(at_most=given.train.steps)
    trainer.train_until(until or given.train.steps)
    return folder / "checkpoints"


def averaged(folder: Path, given: Recipe, ema: str | None, step: int = 12) -> dict[str, Tensor]:
    """An average of a run, as it is sampled."""
    model = models.create_model(**given.model.arguments())
    load_average(model, given, folder, step, ema)
    return model.state_dict()


def test_every_average_is_the_sum_that_defines_it(tmp_path: Path) -> None:
    """Each against the weights after every step, added up in double precision."""
    given = tiny(train={"checkpoint_steps": EVERY_STEP, "ema_decays": [0, 0.5], "ema_stds": STDS})
    first = dict(trainer_of(given, tmp_path / "new", dataset=DIGITS).model.named_parameters())
    first = {name: p.detach().double() for name, p in first.items()}
    checkpoints = trained(given, tmp_path / "run")
    raw = [read_weights(checkpoints, step, "raw") for step in EVERY_STEP]
    for step in (1, 7, 12):
        sums = {f"ema std={std}": (0.0, profile(std, step).tolist()) for std in STDS}
        for name, decay in (("ema", 0.9), ("ema decay=0.5", 0.5)):
            sums[name] = (decay**step, [(1 - decay) * decay ** (step - k) for k in range(1, step + 1)])
        for name, (of_first, weights) in sums.items():
            found = read_weights(checkpoints, step, name)
            for key in ("blocks.0.mlp.fc1.weight", "final_layer.linear.bias"):
                parts = [w * raw[k][key].double() for k, w in enumerate(weights)]
                expected = of_first * first[key] + torch.stack(parts).sum(0)
                torch.testing.assert_close(found[key].double(), expected, rtol=1e-5, atol=1e-8)


def test_more_averages_change_neither_the_training_nor_the_first(tmp_path: Path) -> None:
    plain = trained(tiny(), tmp_path / "plain")
    more = trained(tiny(train={"ema_decays": [0, 0.5], "ema_stds": STDS}), tmp_path / "more")
    for step in (6, 12):
        assert_same(read_weights(plain, step), read_weights(more, step))
    state = load_state(plain, 12)
    assert_same(state, {name: tensor for name, tensor in load_state(more, 12).items() if name in state})


def test_what_is_kept_is_there(tmp_path: Path) -> None:
    given = tiny(train={"ema_decays": [0, 0.5], "ema_stds": STDS, "ema_snapshot_every": 4})
    stds = ("ema std=0.05", "ema std=0.1")
    every = ("ema", "raw", "ema decay=0.5", *stds)
    assert kept_weights(given.train) == {4: stds, 6: every, 8: stds, 12: every}
    files = {path.name for path in trained(given, tmp_path / "run").glob("[!s]*")}
    assert files == {
        *(f"ema-std={std}-{step:08d}.safetensors" for std in (0.05, 0.1) for step in (4, 6, 8, 12)),
        *(f"{name}-{step:08d}.safetensors" for name in ("ema", "raw", "ema-decay=0.5") for step in (6, 12)),
    }
    one = tiny(train={"ema_stds": [0.1]})  # of which no other can be made
    assert kept_weights(one.train) == {6: ("ema", "ema std=0.1"), 12: ("ema", "ema std=0.1")}


@pytest.mark.parametrize("stop", [3, 4, 5, 7, 9, 10])
def test_resumed_averages_equal_uninterrupted_ones(tmp_path: Path, stop: int) -> None:
    """Stopped before, at and after a state, a snapshot, a kept step."""
    given = tiny(train={"ema_decays": [0, 0.5], "ema_stds": STDS, "ema_snapshot_every": 5})
    whole, parts = trained(given, tmp_path / "whole"), tmp_path / "parts"
    trained(given, parts, until=stop)
    assert_same(last_state(given, tmp_path / "whole"), last_state(given, trained(given, parts).parent))
    for path in whole.glob("[!s]*"):
        assert (parts / "checkpoints" / path.name).read_bytes() == path.read_bytes()


def relative(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The distance of all weights, in parts of their norm."""
    apart = torch.stack([(found[name].double() - expected[name].double()).norm() for name in expected]).norm()
    return float(apart / torch.stack([tensor.double().norm() for tensor in expected.values()]).norm())


@pytest.mark.parametrize("std", [0.02, 0.07, 0.2])
def test_made_afterwards_equals_kept_directly(tmp_path: Path, std: float) -> None:
    """With a snapshot at every step there is a sum that is exactly the other width."""
    two = tiny(train={"ema_stds": STDS, "ema_snapshot_every": 1})
    three = tiny(train={"ema_stds": [*STDS, std], "ema_snapshot_every": 1})
    trained(two, tmp_path / "two")
    trained(three, tmp_path / "three")
    for step in (6, 12):
        direct = averaged(tmp_path / "three", three, f"std={std}", step)
        assert relative(averaged(tmp_path / "two", two, f"std={std}", step), direct) < 1e-6


def test_few_snapshots_come_close(tmp_path: Path) -> None:
    """8 of 48 steps: nearer to the width kept directly than a tenth of what the nearest kept ones are."""
    short = {"steps": 48, "checkpoint_steps": [], "save_every": 48, "learning_rate": 1e-2, "ema_snapshot_every": 6}
    two, three = tiny(train={**short, "ema_stds": STDS}), tiny(train={**short, "ema_stds": [*STDS, 0.07]})
    trained(two, tmp_path / "two")
    trained(three, tmp_path / "three")
    direct = averaged(tmp_path / "three", three, "std=0.07", 48)
    nearest = min(relative(averaged(tmp_path / "three", three, f"std={std}", 48), direct) for std in STDS)
    assert 0 < relative(averaged(tmp_path / "two", two, "std=0.07", 48), direct) < nearest / 10


def test_a_kept_width_made_again_of_all_snapshots_is_itself(tmp_path: Path) -> None:
    given = tiny(train={"ema_stds": STDS, "ema_snapshot_every": 3})
    checkpoints = trained(given, tmp_path / "run")
    parts = tuple((std, at) for at in (3, 6, 9, 12) for std in STDS)
    for std in STDS:
        made: dict[str, Any] = dict.fromkeys(read_weights(checkpoints, 12), 0.0)
        for (s, at), number in zip(parts, coefficients(parts, std, 12), strict=True):
            kept = read_weights(checkpoints, at, f"ema std={s}")
            made = {name: made[name] + number * kept[name].double() for name in made}
        assert relative(made, read_weights(checkpoints, 12, f"ema std={std}")) < 1e-6


def test_a_lost_snapshot_is_written_where_training_continues(tmp_path: Path) -> None:
    """Killed between the state of step 4 and its snapshots."""
    given = tiny(train={"ema_stds": STDS, "ema_snapshot_every": 4})
    checkpoints = trained(given, tmp_path / "run", until=5)
    lost = weights_path(checkpoints, 4, "ema std=0.1")
    whole = lost.read_bytes()
    lost.unlink()
    assert trained(given, tmp_path / "run", until=6).exists()
    assert lost.read_bytes() == whole


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"evaluation.ema": "decay=0.99"}, r"evaluation\.ema: decay=0\.99 is not kept; accepted: decay=0\.9;"),
        ({"evaluation.ema": "raw"}, r"evaluation\.ema: raw is not kept; .*train\.ema_decays: \[0\]"),
        ({"evaluation.ema": "std=0.1"}, r"evaluation\.ema: std=0\.1 is not kept; .*train\.ema_stds"),
        (
            {"evaluation.ema": "std=0.2", "train.ema_stds": [0.1], "train.ema_decays": [0.5, 0]},
            r"std=0\.2 is not kept; accepted: decay=0\.9, decay=0\.5, raw, std=0\.1;",
        ),
        ({"evaluation.ema": "decay=0.99", "train.ema_stds": STDS}, "any std that their snapshots can make"),
        (
            {"evaluation.ema": "std=0.2", "train.ema_stds": STDS, "train.ema_snapshot_every": 12},
            r"evaluation\.ema: std=0\.2: made of the 2 snapshots .* step 6, .*accepted there: 0\.0",
        ),
        ({"evaluation.ema": 0.9}, r"evaluation\.ema: 0\.9; accepted: raw, decay=D"),
        ({"evaluation.ema": "decay=1"}, r"evaluation\.ema: 'decay=1'; accepted"),
        ({"evaluation.ema": "std=0.5"}, r"evaluation\.ema: 'std=0\.5'; accepted: .*less than 0\.2887"),
        ({"evaluation.ema": "std=nan"}, r"evaluation\.ema: 'std=nan'; accepted"),
        ({"evaluation.ema": "std=0"}, r"evaluation\.ema: 'std=0'; accepted"),
        ({"evaluation.ema": "std=1e-300"}, r"evaluation\.ema: 'std=1e-300'; accepted: .*at least 1e-05"),
        ({"train.ema_stds": [1e-300]}, r"train\.ema_stds\.0: .*greater than or equal to 0\.00001"),
        ({"evaluation.ema": "ema decay=0.9"}, r"evaluation\.ema: 'ema decay=0\.9'; accepted"),
        ({"train.ema_decays": [0.9]}, r"train\.ema_decays: 0\.9 is there twice \(ema_decay is kept"),
        ({"train.ema_decays": [0.5, 0.5]}, r"train\.ema_decays: 0\.5 is there twice"),
        ({"train.ema_decays": [1.0]}, r"train\.ema_decays\.0: .*less than 1"),
        ({"train.ema_decays": 0.5}, r"train\.ema_decays: expected a list"),
        ({"train.ema_stds": [0.29]}, r"train\.ema_stds\.0: .*less than 0\.288"),
        ({"train.ema_stds": [0.1, 0.1]}, r"train\.ema_stds: 0\.1 is there twice"),
        ({"train.ema_snapshot_every": 4}, r"train\.ema_snapshot_every: 4, but ema_stds are not two"),
        ({"train.ema_stds": STDS, "train.ema_snapshot_every": 13}, r"ema_snapshot_every: 13; accepted: 1 .* to 12"),
        (
            {"train.ema_stds": STDS, "train.ema_snapshot_every": 3, "train.steps": 1000},
            r"ema_snapshot_every: 3; accepted: 4 .* to 1000",
        ),
    ],
)
def test_averages_that_cannot_be_are_refused_with_what_can(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=rf"^recipe\.yaml: .*{named}") as error:
        recipe(changes)
    assert "\n" not in str(error.value)


def test_the_example_of_the_page_is_a_recipe() -> None:
    page = (Path(__file__).parents[2] / "docs" / "averages.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.S)
    sections = {key: {**TINY[key], **given} for key, given in yaml.safe_load(example).items()}
    given = parse_recipe({**TINY, **sections, "train": {**sections["train"], "steps": 400_000}}, "page")
    assert (given.evaluation.ema, len(given.train.snapshot_steps())) == ("std=0.08", 41)


def test_the_average_of_ema_decay_that_is_spelled_out_is_the_same_recipe() -> None:
    assert recipe({"evaluation.ema": "decay=0.90"}) == recipe()
    raw = {"train.ema_decay": 0}
    assert recipe({**raw, "evaluation.ema": "raw"}) == recipe({**raw, "evaluation.ema": "decay=0"}) == recipe(raw)
    more = {"train.ema_decays": [0.5]}
    assert recipe({**more, "evaluation.ema": "decay=5e-1"}) == recipe({**more, "evaluation.ema": "decay=0.5"})
    assert recipe({**more, "evaluation.ema": "decay=0.5"}).id != recipe(more).id != recipe().id
