"""Where tensors live and how precise sums of products are: what a command line, a profile and a run choose from."""

from __future__ import annotations

from typing import Literal

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "tf32", "bf16"]
