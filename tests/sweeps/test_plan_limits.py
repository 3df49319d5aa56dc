"""Plans over a budget, or whose checkpoints are further apart than a job is long, are refused."""

from __future__ import annotations

import pytest
from scaling_plans import only, planned, profile

from bench.errors import InputError
from sweeps.expand import Sweep
from sweeps.planning.plan import check_budget, check_time_limits


def test_budget() -> None:
    whole = planned(only("XL/2"), profile())
    assert whole.gpu_hours is not None
    check_budget(whole, whole.gpu_hours)
    with pytest.raises(InputError) as caught:
        check_budget(whole, 1000)
    assert str(caught.value) == (
        f"some on here needs {whole.gpu_hours:,.1f} GPU-hours, over --budget 1000; nothing was submitted"
    )


def test_time_limits() -> None:
    # XL/2 at an MFU of 10 % on 8 A100 with TF32: 182.228 TFLOP a step take 1.460 s, 5,000 steps 7,301 s.
    fits = profile(time_limit="02:03:41", signal_before_end_s=120)  # SLURM rounds seconds up to a minute
    check_time_limits(planned(only("S/8", "XL/2"), fits), fits)
    short = profile(time_limit="02:03:00", signal_before_end_s=120)
    with pytest.raises(InputError) as caught:
        check_time_limits(planned(only("S/8", "XL/2"), short), short)
    usable = 2 * 3600 + 3 * 60 - 120
    assert str(caught.value) == (
        "XL/2: train.save_every: 5000 steps between checkpoints take 7301 s at 1.46 s a step, but a job of the "
        f"cluster profile has {usable} s (time_limit 02:03:00 less signal_before_end_s 120); accepted: "
        f"train.save_every of at most {usable * 8 * 15.6 // 182.228:.0f}, a longer time_limit, or more GPUs in training"
    )
    # Kept steps are saved too.
    often = only("XL/2").recipes[0]
    train = often.train.model_copy(update={"checkpoint_steps": tuple(range(500, 400_000, 500))})
    where = profile(time_limit="01:00:00")
    check_time_limits(planned(Sweep("often", [often.model_copy(update={"train": train})]), where), where)


def test_advice_is_for_the_device() -> None:
    """Ranks on CPUs have no GPUs to be more of."""
    where = profile(
        device="cpu", precision="fp32", time_limit="00:03:00", training=[{}], evaluation=[{}],
        gpu={"name": "core", "peak_tflops": {"fp32": 0.05}},
    )  # fmt: skip
    with pytest.raises(InputError, match="a longer time_limit, or more tasks_per_node in training"):
        check_time_limits(planned(only("XL/2"), where), where)


def test_a_time_limit_that_the_signal_uses_up() -> None:
    where = profile(time_limit="00:02:00", signal_before_end_s=120)
    with pytest.raises(InputError, match=r"has 0 s .*; accepted: a longer time_limit, or more GPUs in training"):
        check_time_limits(planned(only("XL/2"), where), where)
