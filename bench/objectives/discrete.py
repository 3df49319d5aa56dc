"""The words of objectives on discrete steps."""

from __future__ import annotations

from typing import Literal

Variance = Literal["learned", "fixed-large", "fixed-small"]
Schedule = Literal["linear", "cosine"]
# What a step's loss is weighted with: nothing; min-SNR-gamma (arXiv 2303.09556); P2 (arXiv 2204.00227).
Weighting = Literal["none", "min-snr", "p2"]
