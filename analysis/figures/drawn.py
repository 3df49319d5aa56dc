"""What drawing a figure comes to: the files, or what would have been needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from analysis.errors import ResultsError


@dataclass(frozen=True)
class Drawn:
    """files: pictures, then data; left_out: one line for each source without data for it ("published: ...")."""

    files: list[Path]
    left_out: list[str]


class NothingToDraw(ResultsError):
    """The sources are sound, but lack what the figure shows; other figures can still be drawn of them."""
