"""Training compute in FLOPs and PF-days."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.errors import ResultsError
from analysis.laws.compute import FLOPS_PER_GMAC, training_gmacs
from analysis.laws.forms import Array
from analysis.laws.observations import Observations

FLOPS_PER_PF_DAY = 1e15 * 86_400
FLOPS_PER_GMAC_IMAGE = FLOPS_PER_GMAC * training_gmacs(1, 1, 1)
"""True FLOPs of training on one image, per GMAC of a forward pass: 2 FLOPs a MAC, x 3 for forward and backward."""
ROUNDING = 1e-9  # budgets and steps that differ by a smaller share are equal

CONVENTION = (
    "Training compute is GMACs x 3 x batch x steps (DiT paper, Fig. 9), 2 FLOPs a MAC; 1 PF-day is 8.64e19 FLOPs of "
    "the network itself: at a model FLOPs utilisation of 40 %, book 2.5 times as much. Encoding, sampling and scoring "
    "are not in it"
)


UNITS = re.compile(
    r"(?P<number>.*?)\s*(?:(?P<pf_days>pf[- ]?days?)|(?P<hours>(?:gpu[- ]?)?(?:h|hours?)))?", re.IGNORECASE | re.DOTALL
)
ACCEPTED = "a positive number of PF-days, such as 2e-8, or of GPU-hours of a --cluster, such as 500h"


@dataclass(frozen=True)
class Budget:
    """Training compute. With a cluster, `flops_per_hour` of one of its devices; `speed` says where that comes from."""

    pf_days: float
    cluster: str = ""
    flops_per_hour: float = math.nan
    speed: str = ""

    @property
    def gpu_hours(self) -> float | None:
        """Of the cluster, if there is one."""
        return self.pf_days * FLOPS_PER_PF_DAY / self.flops_per_hour if self.cluster else None

    def __str__(self) -> str:
        hours = f" = {self.gpu_hours:,.4g} GPU-hours on {self.cluster} ({self.speed})" if self.cluster else ""
        return f"{days(self.pf_days)}{hours}"


def parse_budget(text: str, cluster: str | None, speed_of: Callable[[str], tuple[float, str]]) -> Budget:
    """`2e-8`, `2e-8 PF-days`, `500h`, `500 GPU-hours`: the last two are hours of one device of `cluster`.

    Args:
        speed_of: cluster -> true FLOPs that one of its devices trains with in a second, and in words where they are from.

    Raises:
        ResultsError: another text, no positive, finite number, or hours without a cluster.
    """
    found = UNITS.fullmatch(text.strip())
    assert found  # it takes anything
    try:
        amount = float(found["number"])
    except ValueError:
        raise ResultsError(f"--budget {text}: accepted: {ACCEPTED}") from None
    if not (math.isfinite(amount) and amount > 0):
        raise ResultsError(f"--budget {text}: accepted: {ACCEPTED}")
    if cluster is None:
        if found["hours"]:
            raise ResultsError(f"--budget {text}: hours of which GPU? needed: --cluster PROFILE, or PF-days")
        return Budget(amount)
    flops_per_second, speed = speed_of(cluster)
    per_hour = 3600 * flops_per_second
    in_days = amount * per_hour / FLOPS_PER_PF_DAY if found["hours"] else amount
    return Budget(in_days, cluster, per_hour, speed)


def days(pf_days: float) -> str:
    """In words."""
    return f"{pf_days:.3g} PF-day{'' if pf_days == 1 else 's'}"


def pf_days(flops: float) -> float:
    """FLOPs as PF-days."""
    return flops / FLOPS_PER_PF_DAY


def training_flops(rows: Observations) -> Array:
    """(n,) true FLOPs that each row's training took.

    Raises:
        ResultsError: compute is not GMACs of a forward pass.
    """
    if rows.compute.name != "forward":
        raise ResultsError(f"compute {rows.compute.name}: needed: forward, GMACs of a forward pass")
    return FLOPS_PER_GMAC_IMAGE * np.asarray(rows.variables["compute"]) * np.asarray(rows.variables["images"])
