"""Planned compute and time: the paper's published speed and hours, what scores and guidance cost, sums."""

from __future__ import annotations

from dataclasses import replace

import pytest
from recipes import tiny
from scaling_plans import PUBLISHED_STEPS_PER_S, SCALING, local, one, planned, profile

from bench.objectives.process import Process
from bench.samplers import NoOptions
from models.designs import CROSS_ATTENTION
from sweeps.cluster import load_cluster
from sweeps.expand import Sweep
from sweeps.groups import work

XL2_STEP_FLOP = 2 * 3 * 256 * 118.64e9


@pytest.mark.parametrize(("precision", "peak", "percent"), [("fp32", 19.5e12, 59.6), ("tf32", 156e12, 11.8)])
def test_the_papers_speed_and_hours(precision: str, peak: float, percent: float) -> None:
    published = PUBLISHED_STEPS_PER_S[precision]
    mfu = published * XL2_STEP_FLOP / (8 * peak)
    assert 100 * mfu == pytest.approx(percent, abs=0.05)
    xl2 = one("XL/2", profile(), mfu=mfu, precision=precision)
    assert xl2.step_s is not None
    assert 1 / xl2.step_s == pytest.approx(published, rel=1e-4)  # 118.64 is rounded
    assert xl2.training_gpu_hours == pytest.approx(400_000 / published * 8 / 3600, rel=1e-4)
    assert xl2.training == xl2.sampling
    assert xl2.training and xl2.training.source == "given"


def test_the_shipped_example_gives_the_papers_speed() -> None:
    xl2 = one("XL/2", load_cluster("slurm-example"))
    assert xl2.training_job.ranks == 8
    assert xl2.step_s is not None
    assert round(1 / xl2.step_s, 2) == PUBLISHED_STEPS_PER_S["tf32"]
    assert xl2.training and "0.81 steps/s" in xl2.training.source


@pytest.mark.parametrize("label", ["S/2", "L/4", "XL/2"])  # large enough to be bound by compute
def test_one_fid_50k_costs_16300_training_steps(label: str) -> None:
    run_plan = one(label, profile(), mfu=0.3)
    assert run_plan.score_tflop / run_plan.step_tflop == pytest.approx(50_000 * 250 / (3 * 256))
    assert f"{run_plan.score_tflop / run_plan.step_tflop / 1e3:.1f}" == "16.3"
    # The same MFU: a score on 2 GPUs lasts as long as 4 x 16.3K steps on 8.
    assert run_plan.score_s is not None and run_plan.step_s is not None
    assert run_plan.score_s / run_plan.step_s == pytest.approx(4 * 50_000 * 250 / (3 * 256))
    assert run_plan.scores_left == 8
    assert run_plan.scoring_gpu_hours == pytest.approx(8 * 2 * run_plan.score_s / 3600)


def test_guidance_doubles_the_forward_passes() -> None:
    plain, guided = tiny(), tiny(evaluation={"guidance_scale": 1.5, "guidance_channels": None})
    first, second = planned(Sweep("two", [plain, guided]), local()).runs
    assert first.forward_passes == 60 * 4
    assert second.score_tflop == 2 * first.score_tflop
    assert second.step_tflop == first.step_tflop
    assert work(guided) > work(plain)


def test_a_sampler_says_what_a_step_costs() -> None:
    """The plan and the order of the queue ask the sampler; guidance doubles what it says."""
    once, twice = tiny(), tiny(evaluation={"sampler": "test_plan_compute:TWO_CALLS"})
    guided = tiny(evaluation={**twice.evaluation.model_dump(), "guidance_scale": 1.5, "guidance_channels": None})
    first, second, third = planned(Sweep("three", [once, twice, guided]), local()).runs
    assert [run.forward_passes for run in (first, second, third)] == [60 * 4, 60 * 7, 60 * 14]
    passes = 2 * 60 * 1e9 * first.gmacs  # two kept steps, 60 samples each
    assert work(twice) - work(once) == pytest.approx(passes * 3)
    assert work(guided) - work(twice) == pytest.approx(passes * 7)


class TwoCalls:
    """A second-order sampler: two calls a step, but one in the last."""

    options, serves = NoOptions, ("discrete",)

    def call_times(self, process: Process, num_steps: int, options: NoOptions) -> list[float]:
        first, *others = process.grid(num_steps)[:-1]
        return [first, *(t for time in others for t in (time, time))]

    def sample(self) -> None: ...


TWO_CALLS = TwoCalls()
# States no cost: it is counted.
UNSTATED = replace(CROSS_ATTENTION, cost=None)


def test_a_design_that_states_no_cost_is_planned_by_its_count() -> None:
    stated, unstated = (tiny(model={"block": block}) for block in ("cross-attention", "test_plan_compute:UNSTATED"))
    first, second = planned(Sweep("two", [stated, unstated]), local()).runs
    assert (first.gmacs, first.parameters, first.fixed_parameters) == (
        second.gmacs, second.parameters, second.fixed_parameters
    )  # fmt: skip
    assert (first.step_tflop, first.score_tflop) == (second.step_tflop, second.score_tflop)
    assert work(unstated) == work(stated)


def test_totals_are_the_sums() -> None:
    whole = planned(SCALING, profile())
    assert whole.training_gpu_hours == pytest.approx(sum(r.training_gpu_hours or 0 for r in whole.runs))
    # Table 4 again: the sum of the 12 printed Gflops, within their rounding.
    printed = (0.36, 1.41, 6.06, 1.42, 5.56, 23.01, 5.01, 19.70, 80.71, 7.39, 29.05, 118.64)
    hours = sum(printed) * 1e9 * 6 * 256 * 400_000 / (156e12 * 0.1) / 3600
    assert whole.training_gpu_hours == pytest.approx(hours, rel=1e-3)
    # Training at an MFU of 10 %, sampling at 20 %: half of 8 x 16.3K steps.
    assert whole.scoring_gpu_hours == pytest.approx(hours * 8 * 16_276 / 400_000 / 2, rel=1e-3)
    assert whole.gpu_hours == pytest.approx(1.163 * hours, rel=1e-3)
