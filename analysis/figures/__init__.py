"""The figures of the DiT paper and ours: the catalogue, and drawing them by name. Each figure is one module here."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import ResultsError
from analysis.figures.drawn import Drawn, NothingToDraw

if TYPE_CHECKING:
    from analysis.figures.sources import Source
    from analysis.figures.style import Width
    from analysis.results.tables import Tables

__all__ = [
    "ALL",
    "CATALOGUE",
    "check_name",
    "draw",
    "draw_all",
    "draw_available",
    "gflops_vs_score",
    "sample_grid",
    "training_curves",
]

ALL = "all"


@dataclass(frozen=True)
class Entry:
    """module: the file of this folder that draws it; shows: one line for people."""

    module: str
    shows: str


CATALOGUE = {
    "bubbles": Entry("bubbles", "FID of the models, area = GMACs, and DiT against ADM and LDM (paper, Fig. 2)"),
    "blocks": Entry("blocks", "block designs over training (Fig. 5)"),
    "fid-vs-steps": Entry("curves", "FID over training by patch and by size (Fig. 6)"),
    "sample-grid": Entry("samples", "samples of all models from the same noise (Fig. 7)"),
    "gflops-vs-fid": Entry("compute", "GMACs against FID, with the correlation (Fig. 8)"),
    "training-compute": Entry("training_compute", "training compute against FID, with the frontier (Fig. 9)"),
    "sampling-compute": Entry("sampling_compute", "sampling compute against FID (Fig. 10)"),
    "metrics": Entry("metrics", "every metric against GMACs (Fig. 12)"),
    "loss": Entry("loss", "training loss (Fig. 13)"),
    "fitted-law": Entry("fitted_law", "power law with its interval, and the largest model predicted from the others"),
    "residuals": Entry("residuals", "what the power law leaves, by patch size"),
    "isoflop": Entry("isoflop", "models of several sizes at equal training compute"),
    "seeds": Entry("seeds", "spread of the scores over training seeds"),
    "guidance": Entry("guidance", "scores against the guidance scale"),
    "decoders": Entry("decoders", "scores with different autoencoder decoders (Table 5)"),
}


def check_name(name: str) -> None:
    """Refuse names that neither stand in the `CATALOGUE` nor for all of it.

    Raises:
        ResultsError: lists the accepted names.
    """
    if name != ALL and name not in CATALOGUE:
        raise ResultsError(f"{name}: no such figure; accepted: {ALL}, {', '.join(CATALOGUE)}")


def draw(name: str, sources: Sequence[Source], out: Path, width: Width = "two") -> Drawn:
    """Draw the figure `name` of the `CATALOGUE` from `sources` into the folder `out`.

    Raises:
        NothingToDraw: no source has what the figure shows; the message says what would be needed.
        ResultsError: unknown name, scores that are not finite or not comparable.
    """
    if name not in CATALOGUE:
        raise ResultsError(f"{name}: no such figure; accepted: {', '.join(CATALOGUE)}")
    return importlib.import_module(f"analysis.figures.{CATALOGUE[name].module}").draw(sources, out, width)


def draw_available(sources: Sequence[Source], out: Path, width: Width = "two") -> Drawn:
    """Draw every figure that `sources` have data for; `left_out` says of each other one what it would need.

    Raises:
        NothingToDraw: there is data for none.
        ResultsError: scores that are not finite or not comparable.
    """
    files: list[Path] = []
    left_out: list[str] = []
    for name in CATALOGUE:
        try:
            drawn = draw(name, sources, out, width)
        except NothingToDraw as error:
            left_out.append(f"{name} is not drawn: {error}")
        else:
            files += drawn.files
            left_out += [f"{name} is drawn without {reason}" for reason in drawn.left_out]
    if not files:
        raise NothingToDraw("; ".join(left_out))
    return Drawn(files, left_out)


def draw_all(tables: Tables, out: Path) -> list[Path]:
    """The three figures of a finished sweep: the functions below. Returns the files written.

    Raises:
        ResultsError: see `draw`.
    """
    return [*gflops_vs_score(tables, out), *training_curves(tables, out), *sample_grid(tables, out)]


def gflops_vs_score(tables: Tables, out: Path) -> list[Path]:
    """`analysis.figures.compute`, of measured beside published scores."""
    from analysis.figures.scores import scaling_scores
    from analysis.figures.sources import measured, published_source

    source = measured(tables)
    scaling_scores(source)  # refuses: the published scores alone are not what was asked for
    return draw("gflops-vs-fid", [source, published_source()], out).files


def training_curves(tables: Tables, out: Path) -> list[Path]:
    """`analysis.figures.curves`, of measured scores."""
    from analysis.figures.sources import measured

    return draw("fid-vs-steps", [measured(tables)], out).files


def sample_grid(tables: Tables, out: Path) -> list[Path]:
    """`analysis.figures.samples`, of measured runs."""
    from analysis.figures.sources import measured

    return draw("sample-grid", [measured(tables)], out).files
