"""Training compute in FLOPs and PF-days."""

from __future__ import annotations

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
