"""What compute means: the conventions under which a law's C is counted, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd


Convention = Literal["forward", "training", "training-flops", "6nd"]

FLOPS_PER_GMAC = 2e9


# bench.flops.training_gmacs is the same, but bench needs torch, and analysis imports nothing of it; a test holds the
# two equal.
def training_gmacs(gmacs: Any, batch_size: Any, steps: Any) -> Any:
    """GMACs of training by the rule of the DiT paper's Fig. 9: the backward pass costs two forward passes.

    Numbers or columns; `gmacs` of one forward pass of one image.
    """
    return gmacs * 3 * batch_size * steps


@dataclass(frozen=True)
class Compute:
    """One way to count compute: `unit` of the numbers, and in words what they count.

    `of` takes a table with the columns gmacs, batch_size, step, params and tokens to a column of compute.
    """

    name: str
    unit: str
    definition: str
    of: Callable[[pd.DataFrame], Any] = field(repr=False)

    def to_dict(self) -> dict[str, str]:
        """Name, unit and definition."""
        return {"name": self.name, "unit": self.unit, "definition": self.definition}


def _training_gmacs(table: pd.DataFrame) -> Any:
    return training_gmacs(table["gmacs"], table["batch_size"], table["step"])


COMPUTE = {
    compute.name: compute
    for compute in (
        Compute(
            "forward",
            "GMACs",
            "10^9 multiply-accumulates of one forward pass of one image (the DiT paper's Gflops; true FLOPs are 2x)",
            lambda table: table["gmacs"],
        ),
        Compute(
            "training",
            "training GMACs",
            "GMACs of a forward pass x 3 x batch x steps (DiT paper, Fig. 9; true FLOPs are 2x)",
            _training_gmacs,
        ),
        Compute(
            "training-flops",
            "FLOPs",
            "2 x 10^9 x training GMACs, measured by counting the operators",
            lambda table: FLOPS_PER_GMAC * _training_gmacs(table),
        ),
        Compute(
            "6nd",
            "FLOPs",
            "C = 6 N D: parameters N, training tokens D = tokens an image x batch x steps "
            "(Hoffmann et al. 2022, arXiv:2203.15556); no attention products, all parameters",
            lambda table: 6.0 * table["params"] * table["tokens"] * table["batch_size"] * table["step"],
        ),
    )
}
"""Convention name -> convention."""

AS_GIVEN = Compute("as-given", "units as given", "as given, in plain numbers", lambda table: table["compute"])
"""Of compute that did not come from a table of runs."""
