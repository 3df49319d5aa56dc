"""The names by which people choose how a law is fitted. Nothing is imported: the command line's help stays instant."""

from __future__ import annotations

from typing import Literal

Objective = Literal["logs", "values", "log-huber"]
"""What is minimised; `solver.OBJECTIVES` says it in words."""

Method = Literal["bootstrap", "residual"]
"""What a bootstrap draws; `bootstrap.METHODS` says it in words."""

Intervals = Literal["bootstrap", "residual", "profile"]
"""How intervals are made: by a bootstrap, or from the profile likelihood."""
