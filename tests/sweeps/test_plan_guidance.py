"""What guidance costs in a plan: the interval saves calls, and a guide costs what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recipes import tiny
from scaling_plans import local, planned

from bench.errors import InputError
from bench.files.run_folder import weights_path, write_config
from bench.flops import forward_gmacs
from bench.recipe import Recipe
from sweeps.expand import Sweep
from sweeps.groups import work
from sweeps.planning.report import print_explanation
from sweeps.planning.speeds import score_floor_s


def guided(**evaluation: Any) -> Recipe:
    return tiny(model={"depth": 2}, evaluation={"guidance_scale": 1.5, "guidance_channels": None, **evaluation})


def test_an_interval_saves_the_calls_outside_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    always, in_part = guided(), guided(guidance_interval=[300, 700])
    recipes = [guided(guidance_scale=1.0), always, in_part]
    plan = planned(Sweep("three", recipes), local())
    none, whole, part = plan.runs
    # Of the four times 999, 666, 333 and 0, two are in it.
    assert [run.forward_passes for run in plan.runs] == [60 * 4, 60 * 8, 60 * 6]
    assert part.score_tflop == pytest.approx(1.5 * none.score_tflop, rel=1e-12)
    assert work(always) - work(in_part) == pytest.approx(2 * 60 * 2e9 * whole.gmacs)
    print_explanation(plan)
    explained = capsys.readouterr().out
    for passes in ("60 samples x 4 network calls x 2", "(4 network calls + 4 guided ones) x 2", "+ 2 guided ones) x 2"):
        assert passes in explained


def test_a_guide_of_the_run_itself_costs_what_the_model_does() -> None:
    by_null, by_step = guided(), guided(guide_step=6)
    first, second = planned(Sweep("two", [by_null, by_step]), local()).runs
    assert first.score_tflop == second.score_tflop
    # Another network is called for itself: its kernels are started one after the other.
    assert (
        score_floor_s(by_step, 1) == 2 * score_floor_s(by_null, 1) == 2 * score_floor_s(guided(guidance_scale=1.0), 1)
    )


def test_a_smaller_guide_costs_less(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "small"
    recipe = guided(guide=str(folder), guidance_interval=[300, 700])
    with pytest.raises(InputError, match=r"evaluation\.guide: "):
        planned(Sweep("one", [recipe]), local())
    write_config(tiny(), folder)
    with pytest.raises(InputError, match=r"evaluation\.guide: .* no weights of step 12"):
        planned(Sweep("one", [recipe]), local())
    weights_path(folder / "checkpoints", 12).parent.mkdir()
    weights_path(folder / "checkpoints", 12).write_bytes(b"")
    plan = planned(Sweep("one", [recipe]), local())
    share = forward_gmacs(tiny().model) / forward_gmacs(recipe.model)
    assert 0 < share < 1
    assert plan.runs[0].forward_passes == pytest.approx(60 * (4 + 2 * share))
    print_explanation(plan)
    assert f"(4 network calls + 2 guided ones x {share:.3g} (the guide's cost)) x 2" in capsys.readouterr().out


def test_the_order_of_runs_does_not_need_the_guide() -> None:
    """Such as of a finished sweep, whose guide has been cleared away since."""
    assert work(guided(guide="runs/gone")) == work(guided())
