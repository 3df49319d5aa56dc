"""The names by which people choose how a law is fitted. No numpy: the command line's help stays instant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from analysis.errors import ResultsError

Objective = Literal["logs", "values", "log-huber"]
"""What is minimised; `solver.OBJECTIVES` says it in words."""

Method = Literal["bootstrap", "residual"]
"""What a bootstrap draws; `bootstrap.METHODS` says it in words."""

REACH = 4.0
"""Times the steps that it was scored at, a model is advised for: farther, no law has been seen to hold."""

Intervals = Literal["bootstrap", "residual", "profile"]
"""How intervals are made: by a bootstrap, or from the profile likelihood."""

COLUMN_OPTIONS = {
    "score": "--y",
    "compute": "--x",
    "params": "--params",
    "images": "--data",
    "tokens": "--tokens",
    "models": "--models",
    "seeds": "--seeds",
    "patches": "--patches",
}
"""What `Observations` are made of -> how `ditbench fit` is told the column of a CSV that it is."""


def check_known(what: str, name: str, accepted: Iterable[str]) -> None:
    """Raise ResultsError unless `name` is among those accepted."""
    known = tuple(accepted)
    if name not in known:
        raise ResultsError(f"{what} {name}: unknown; accepted: {', '.join(known)}")
