"""The words of objectives on discrete steps."""

from __future__ import annotations

from typing import Literal

# Fewer linear steps reach beta = 1.
MIN_TIMESTEPS = 21

Prediction = Literal["noise", "velocity"]
Variance = Literal["learned", "fixed-large", "fixed-small"]
