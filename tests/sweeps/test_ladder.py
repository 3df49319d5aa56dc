"""Ladders: steps from budgets and from tokens, the sweep that they become, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Ended, ditbench
from ladder_runs import write_ladder, write_models

from bench.errors import InputError
from sweeps.expand import load_sweep
from sweeps.ladder import build
from sweeps.shipped import LADDERS, STUDIES


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def steps_of(path: Path) -> list[tuple[str, int]]:
    return [(step.rung.model.label, step.rung.steps) for step in build(path).steps]


def written(path: Path) -> Path:
    ended = ditbench("ladder", path, "--out", "made.yaml")
    assert (ended.status, ended.err) == (0, "")
    return Path("made.yaml")


def test_a_budget_pays_for_whole_steps_by_the_papers_count(tmp_path: Path) -> None:
    """8.64e16 FLOPs, of 2 x 3 x 256 x 118.638e9 a step of XL/2, 80.711e9 of L/2 (DiT paper, Table 4, a digit more)."""
    budgets = [{"pf_days": 1e-3}, {"pf_days": 5e-4, "models": ["L/2"]}]
    path = write_ladder(tmp_path, extends="scaling", models=["XL/2", "L/2"], isoflop=budgets)
    assert steps_of(path) == [("XL/2", 474), ("L/2", 696), ("L/2", 348)]
    for step in build(path).steps:
        budget = float(step.asked.split()[0])
        one = step.pf_days / step.rung.steps
        assert step.pf_days <= budget < step.pf_days + one
        assert step.images == 256 * step.rung.steps and step.epochs == pytest.approx(step.images / 1_281_167)


def test_a_budget_of_exactly_so_many_steps_pays_for_all_of_them(tmp_path: Path) -> None:
    write_models(tmp_path)
    one = next(step.pf_days / step.rung.steps for step in build(write_ladder(tmp_path, models=["S/2"])).steps)
    for steps in (1, 3, 10, 4801):
        path = write_ladder(tmp_path, models=["S/2"], isoflop=[{"pf_days": one * steps}])
        assert steps_of(path) == [("S/2", steps)]


def test_multiples_of_tokens_are_of_the_networks_parameters(tmp_path: Path) -> None:
    """S/2 has 32,963,360 parameters with its position table, and sees 256 tokens an image, of 256 images a step."""
    tokens: dict[str, Any] = {"multiples": [1, 2.5]}
    path = write_ladder(tmp_path, extends="scaling", models=["S/2"], isoflop=[], tokens=tokens)
    seen = 20 * 32_963_360 / (256 * 256)
    assert steps_of(path) == [("S/2", int(seen)), ("S/2", int(2.5 * seen))]
    path = write_ladder(tmp_path, extends="scaling", models=["S/2"], isoflop=[], tokens=tokens | {"per_parameter": 1})
    assert steps_of(path) == [("S/2", int(seen / 20)), ("S/2", int(2.5 * seen / 20))]


def test_the_sweep_that_is_written_has_the_ladders_recipes(tmp_path: Path) -> None:
    write_models(tmp_path)
    base = {"evaluation": {"num_samples": 80}}
    path = write_ladder(tmp_path, isoflop=[{"pf_days": 1e-10}, {"pf_days": 4e-10}], seeds=[3, 5], base=base)
    path.write_text("# A ladder of mine.\n# On two seeds.\n\n# of no account\n" + path.read_text())
    made, again = written(path), load_sweep("made.yaml")
    assert made.read_text().splitlines()[:2] == ["# A ladder of mine.", "# On two seeds."]
    assert "of no account" not in made.read_text()
    built = build(path)
    assert [recipe.id for recipe in again.recipes] == [recipe.id for recipe in built.content.sweep.recipes]
    assert len(again.recipes) == 2 * 2 * 4
    by_rung = {(recipe.label, recipe.train.steps): recipe for recipe in again.recipes}
    assert set(by_rung) == {(step.rung.model.label, step.rung.steps) for step in built.steps}
    parents = {recipe.label: recipe for recipe in load_sweep("models.yaml").recipes}
    for (label, steps), recipe in by_rung.items():
        parent = parents[label]
        assert recipe.model == parent.model and recipe.evaluation.num_samples == 80
        assert recipe.train.kept_steps() == [steps]
        # The parent cools down over 150 of 600 steps, after a warm-up of 50.
        assert recipe.train.cooldown_steps == round(steps / 4) and recipe.train.warmup_steps == round(steps / 12)
        changed = {"steps", "cooldown_steps", "warmup_steps", "checkpoint_steps"}
        assert recipe.train.model_dump(exclude=changed) == parent.train.model_dump(exclude=changed)
    # The same command again finds its own file; another ladder's is not written over.
    assert ditbench("ladder", path, "--out", "made.yaml").status == 0
    write_ladder(tmp_path, seeds=[4])
    assert refusal("ladder", path, "--out", "made.yaml").startswith("made.yaml: is there already")


def test_the_price_is_that_of_the_sweeps_plan(tmp_path: Path) -> None:
    write_models(tmp_path)
    path = write_ladder(tmp_path)
    printed = ditbench("ladder", path, "--cluster", "slurm-example").out
    written(path)
    plan = ditbench("sweep", "plan", "made.yaml", "--cluster", "slurm-example").out
    assert plan and plan.strip() in printed


def test_every_shipped_ladder_is_a_shipped_study() -> None:
    """Its file says what the ladder's says now."""
    for path in LADDERS.glob("*.yaml"):
        built = build(path)
        assert built.content.text(built.comment) == (STUDIES / f"{built.content.sweep.name}.yaml").read_text()


def refusal(*arguments: object) -> str:
    ended: Ended = ditbench(*arguments)
    assert (ended.status, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    return line.removeprefix("ditbench: ")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"isoflop": [{"pf_days": 1e-9}, {"pf_days": 1e-16}]}, "isoflop.1: 1e-16 PF-days are 0."),
        ({"max_epochs": 2}, "isoflop.0: 1e-09 PF-days take S/4 "),
        ({"isoflop": [{"pf_days": 1e-3}]}, "times over the 1,797 images of digits; accepted: at most 1400"),
        ({"isoflop": [{"pf_days": 1e300}]}, "isoflop.0: 1e+300 PF-days take S/4 "),
        ({"isoflop": [{"pf_days": 1e-9}, {"pf_days": 1e-9}]}, "isoflop.pf_days: 1e-09 is there twice"),
        ({"isoflop": [{"pf_days": 1e-9}, {"pf_days": 1.0000001e-9}]}, "S/4 is trained for 24,2"),
        ({"models": ["S/4", "S/4"]}, "models: S/4 is there twice"),
        ({"models": ["S/4", "XL/9"]}, "models: XL/9: unknown model; accepted: S/4, S/2, B/4, B/2"),
        ({"models": ["S/4"], "isoflop": [{"pf_days": 1e-9, "models": ["B/4"]}]}, "isoflop.0.models: B/4: unknown"),
        ({"models": []}, "models: "),
        ({"models": "S/4"}, "models: expected a list"),
        ({"seeds": [1, 1]}, "seeds: 1 is there twice"),
        ({"seeds": [-1]}, "seeds.0: "),
        ({"seeds": [True]}, "seeds.0: "),
        ({"isoflop": [{"pf_days": 0}]}, "isoflop.0.pf_days: "),
        ({"isoflop": [{"pf_days": float("nan")}]}, "isoflop.0.pf_days: "),
        ({"isoflop": [{"pf_days": "1e-9 PF-days"}]}, "isoflop.0.pf_days: "),
        ({"isoflop": [1e-9]}, "isoflop.0: expected a mapping with the keys pf_days, models"),
        ({"isoflop": []}, "isoflop, tokens: neither given; accepted: one of them"),
        ({"tokens": {"multiples": [1]}}, "isoflop, tokens: both given; accepted: one of them"),
        ({"isoflop": [], "tokens": {"multiples": [1, 1]}}, "tokens.multiples: 1 is there twice"),
        ({"isoflop": [{"pf_days": 1e-9, "models": ["B/4"]}], "models": ["B/4", "S/4"]}, "models: S/4: no budget"),
        ({"base": {"seed": 3}}, "base.seed: a ladder's runs have their own"),
        ({"base": {"train": {"steps": 10}}}, "base: train.steps: a ladder's runs have their own"),
        ({"base": {"train": {"checkpoint_steps": [5]}}}, "base: train.checkpoint_steps: a ladder's"),
        ({"isoflop": [], "tokens": {"multiples": [1e-9]}}, "tokens.multiples.0: 2e-08 tokens a parameter are "),
        ({"budgets": [1]}, "budgets: unknown key; accepted: name, extends, models, base, isoflop, tokens, seeds"),
        ({"extends": "nothing"}, "extends: "),
        ({"extends": "spec.yaml"}, "extends: spec.yaml extends this file in turn"),
        ({"name": "no/name"}, "name: 'no/name': accepted: a folder's name"),
        ({"base": {"train": {"batchsize": 3}}}, "train.batchsize: unknown key"),
        ({"base": {"train": {"batch_size": 5000}}}, "batch_size: 5000 is larger than the dataset"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_ladders_are_refused_in_one_line(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    write_models(tmp_path)
    path = write_ladder(tmp_path, **changed)
    with pytest.raises(InputError) as refused:
        build(path)
    line = str(refused.value)
    assert line.startswith(str(path)) and said in line and "\n" not in line


def test_what_is_no_ladder_is_refused_by_the_command(tmp_path: Path) -> None:
    write_models(tmp_path)
    assert refusal("ladder", "nope").startswith("nope: no such file; accepted: the path of a ladder's YAML file, or a")
    (tmp_path / "list.yaml").write_text("- 1\n")
    assert refusal("ladder", "list.yaml").startswith("list.yaml: a ladder is a mapping with the keys name, extends")
    path = write_ladder(tmp_path)
    assert "is the ladder's own file" in refusal("ladder", path, "--out", path)
    assert refusal("ladder", path, "--cluster", "nowhere").startswith("--cluster nowhere: no such profile")
    same = {"size": {"S": {"model.depth": 1}, "B": {"model.depth": 2}}}
    write_models(tmp_path, product=same, label="one")
    assert "runs labelled one differ in more than their seed" in refusal("ladder", path)


def test_a_ladder_of_a_sweep_with_seeds_has_its_own(tmp_path: Path) -> None:
    content = yaml.safe_load(write_models(tmp_path).read_text())
    content["product"]["seed"] = [7, 8]
    (tmp_path / "models.yaml").write_text(yaml.safe_dump(content))
    written(write_ladder(tmp_path, seeds=[1]))
    assert {recipe.seed for recipe in load_sweep("made.yaml").recipes} == {1}
