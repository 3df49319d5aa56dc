"""What a figure is before it is written: the drawing, the numbers in it, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.errors import ResultsError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A drawn figure.

    name: of its files; data: what is plotted, a table or named arrays; short: the conditions in a line; caption: all
    of them, a paragraph a line; keys: the names with hashes that the scores were made with, a paragraph a line;
    left_out: one line for each source without data for it ("published: ..."); title: what it shows; animation: figures
    of one size that are shown one after the other, where something moves.
    """

    name: str
    figure: Figure
    data: pd.DataFrame | Mapping[str, np.ndarray[Any, Any]]
    short: str
    caption: str
    keys: str = ""
    left_out: Sequence[str] = ()
    title: str = ""
    animation: Sequence[Figure] = ()


@dataclass(frozen=True)
class Drawn:
    """files: pictures, data, captions; left_out: as a `Picture`'s, or one line for each figure without data."""

    files: list[Path]
    left_out: list[str]


class NothingToDraw(ResultsError):
    """The sources are sound, but lack what the figure shows; other figures can still be drawn of them."""
