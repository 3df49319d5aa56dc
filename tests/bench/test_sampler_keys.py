"""What a recipe says of its sampler: refused in one line where it does not fit, and part of the score's key."""

from __future__ import annotations

from typing import Any

import pytest
from recipes import content

from bench.errors import InputError
from bench.objectives import Objective
from bench.objectives.process import LinearPath, NoiseLevels, Process
from bench.recipe import Recipe, parse_recipe
from bench.recipe.evaluation import by_flag, parse_evaluation
from bench.samplers import NoOptions, call_times
from bench.samplers.guide import forward_passes


class Flow(Objective):
    """As far as recipes ask: a continuous process, and networks that predict no variance."""

    options = NoOptions

    @classmethod
    def process(cls, options: Any) -> Process:
        return LinearPath()


class Levels(Flow):
    @classmethod
    def process(cls, options: Any) -> Process:
        return NoiseLevels(0.002, 80.0, 7.0)


def of(objective: str, sampler: str, steps: int = 10, options: dict[str, Any] | None = None, **more: Any) -> Recipe:
    evaluation = {"sampler": sampler, "sampling_steps": steps, "sampler_options": options or {}, **more}
    whole = content({f"evaluation.{key}": value for key, value in evaluation.items()})
    if objective != "iddpm":
        whole["diffusion"] = {"objective": f"test_sampler_keys:{objective}"}
        whole["model"]["learn_sigma"] = False
    return parse_recipe(whole, "tiny")


@pytest.mark.parametrize(
    ("objective", "sampler", "steps", "options", "named"),
    [
        ("iddpm", "sde", 10, {}, ["sampler: sde samples continuous processes", "iddpm", "ddpm, ddim, euler, heun"]),
        ("Flow", "ddpm", 10, {}, ["sampler: ddpm samples discrete processes", "accepted: euler, heun, sde"]),
        ("Flow", "ddim", 10, {"eta": 0.5}, ["sampler: ddim samples discrete processes"]),
        ("Flow", "euler", 10, {"eta": 0.5}, ["sampler_options.eta: unknown key; accepted: shift"]),
        ("iddpm", "ddim", 10, {"shift": 2.0}, ["sampler_options.shift: unknown key; accepted: eta"]),
        ("iddpm", "euler", 10, {"shift": 2.0}, ["sampler_options.shift: 2"]),
        ("iddpm", "dpm-solver++", 10, {"shift": 2.0}, ["sampler_options.shift: 2"]),
        ("Levels", "heun", 10, {"shift": 2.0}, ["sampler_options.shift: 2"]),
        ("Flow", "heun", 10, {"shift": 0.0}, ["sampler_options.shift: 0; accepted: 0.001 to 1000"]),
        ("Flow", "heun", 10, {"shift": -3}, ["sampler_options.shift: -3; accepted"]),
        ("Flow", "heun", 10, {"shift": 1e9}, ["sampler_options.shift: 1e+09; accepted"]),
        ("Flow", "heun", 10, {"shift": "3"}, ["sampler_options.shift: ", "number, got '3'"]),
        ("Flow", "heun", 10, {"shift": float("inf")}, ["sampler_options.shift: ", "finite"]),
        ("Flow", "unipc", 2, {"order": 3}, ["sampling_steps: 2", "sampler_options.order (3)"]),
        ("iddpm", "dpm-solver++", 2, {"order": 3}, ["sampling_steps: 2", "sampler_options.order (3)"]),
        ("Flow", "unipc", 10, {"order": 4}, ["sampler_options.order: Input should be 1, 2 or 3, got 4"]),
        ("Flow", "sde", 10, {"norm": -1.0}, ["sampler_options.norm: -1; accepted: 0 to 100"]),
        ("Flow", "sde", 10, {"diffusion": "sigmoid"}, ["sampler_options.diffusion: ", "'sigma', 'constant' or 'sbdm'"]),
        ("Flow", "sde", 10, {"last_step": None}, ["sampler_options.last_step: ", "'none'"]),
        ("Flow", "sde", 10, {"last_step_size": 0.0}, ["sampler_options.last_step_size: 0; accepted: more than 0"]),
        ("Flow", "sde", 10, {"last_step_size": 1.0}, ["sampler_options.last_step_size: 1; accepted: ", "less than 1"]),
        ("Levels", "sde", 10, {"last_step_size": 0.001}, ["sampler_options.last_step_size: 0.001; accepted", "0.002"]),
        ("Flow", "sde", 10, {"last_step": "none", "last_step_size": 0.1}, ["sampler_options.last_step_size: 0.1"]),
        ("Flow", "euler", 10**9, {}, ["sampling_steps", "100000"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_when_the_recipe_is_read(
    objective: str, sampler: str, steps: int, options: dict[str, Any], named: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        of(objective, sampler, steps, options)
    message = str(caught.value)
    assert message.startswith("tiny: evaluation.")
    assert "\n" not in message
    for fragment in named:
        assert fragment in message


@pytest.mark.parametrize(
    ("objective", "sampler", "steps", "options", "calls"),
    [
        ("iddpm", "heun", 10, {}, 19),
        ("Flow", "heun", 125, {}, 250),
        ("Flow", "sde", 250, {"norm": 2}, 250),
        ("Levels", "heun", 18, {}, 35),
        ("Levels", "sde", 2, {}, 2),
        ("Flow", "unipc", 3, {"order": 3, "shift": 3}, 3),
    ],
)
def test_calls_are_counted_twice_with_guidance(
    objective: str, sampler: str, steps: int, options: dict[str, Any], calls: int
) -> None:
    plain = of(objective, sampler, steps, options)
    assert len(call_times(plain.evaluation, plain.diffusion)) == calls
    guided = of(objective, sampler, steps, options, guidance_scale=2.0, guidance_channels=None)
    assert forward_passes(plain.evaluation, plain.diffusion, 1.0) == calls
    assert forward_passes(guided.evaluation, guided.diffusion, 1.0) == 2 * calls


def test_options_are_in_the_scores_key_and_the_id_but_defaults_are_not() -> None:
    default = of("Flow", "sde")
    spelled = {"diffusion": "sigma", "norm": 1, "last_step": "mean", "last_step_size": 0.04, "shift": 1}
    assert of("Flow", "sde", options=spelled).id == default.id
    assert default.evaluation.sampler_id == "sde"
    other = of("Flow", "sde", options={"norm": 2, "shift": 3})
    assert other.evaluation.sampler_id == "sde norm=2.0 shift=3.0"
    assert other.id != default.id
    assert of("Flow", "sde", options={"norm": 2.0, "shift": 3.0}).id == other.id


def test_commands_name_the_flag_that_gave_the_option() -> None:
    with pytest.raises(InputError, match=r"^--sampler-option last_step_size: 0; accepted"):
        parse_evaluation(sampler="sde", sampler_options={"last_step_size": 0.0})
    assert by_flag("sampler_options.shift: 2; accepted: 1") == "--sampler-option shift: 2; accepted: 1"
    assert by_flag("sampling_steps: 2 is less") == "--sampling-steps: 2 is less"
