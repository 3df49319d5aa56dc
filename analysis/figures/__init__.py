"""The figures of the DiT paper and ours: the catalogue, and drawing them by name. Each figure is one module here."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.drawing.picture import Drawn, NothingToDraw, Picture
from analysis.errors import ResultsError

if TYPE_CHECKING:
    from analysis.drawing.style import Width
    from analysis.drawing.write import Caption
    from analysis.figures.sources import Source
    from analysis.results.tables import Tables

__all__ = [
    "ALL",
    "CATALOGUE",
    "NothingToDraw",
    "available",
    "draw",
    "draw_all",
    "draw_available",
    "gflops_vs_score",
    "named",
    "picture",
    "sample_grid",
    "training_curves",
]

ALL = "all"


@dataclass(frozen=True)
class Entry:
    """module: the file of this folder that draws it; number: of the paper's figure or table, if it has one; shows: one
    line for people; needs: what a results folder must have."""

    module: str
    number: str
    shows: str
    needs: str


CATALOGUE = {
    "bubbles": Entry("bubbles", "Fig. 2", "FID of the models, area = GMACs; DiT against ADM and LDM", "a score"),
    "blocks": Entry("blocks", "Fig. 5", "designs of one model over training", "one model in two block designs"),
    "fid-vs-steps": Entry("curves", "Fig. 6", "FID over training by patch and by size", "a score"),
    "sample-grid": Entry("samples", "Fig. 7", "samples of all models from the same noise", "samples"),
    "gflops-vs-fid": Entry("compute", "Fig. 8", "GMACs against FID, with the correlation", "a score"),
    "training-compute": Entry(
        "training_compute", "Fig. 9", "training compute against FID, with the frontier", "a score"
    ),
    "sampling-compute": Entry("sampling_compute", "Fig. 10", "sampling compute against FID", "several sampling_steps"),
    "network-calls": Entry(
        "network_calls", "", "network calls against FID, sampler by sampler", "two samplers, several network calls"
    ),
    "metrics": Entry("metrics", "Fig. 12", "every metric against GMACs", "two metrics"),
    "loss": Entry("loss", "Fig. 13", "training loss", "a run that has trained"),
    "decoders": Entry("decoders", "Table 5", "scores with different autoencoder decoders", "two decoders"),
    "fitted-law": Entry(
        "fitted_law", "", "power law with its interval, and the largest model predicted from the others", "five models"
    ),
    "residuals": Entry("residuals", "", "what the power law leaves, by patch size", "three models"),
    "isoflop": Entry("isoflop", "", "models of several sizes at equal training compute", "three sizes, equal compute"),
    "designs": Entry(
        "designs", "", "two designs at equal compute, and the compute between them", "two designs of three models each"
    ),
    "families": Entry("families", "", "model families on one axis of GMACs", "two model families"),
    "seeds": Entry("seeds", "", "spread of the scores over training seeds", "two seeds of one model"),
    "guidance": Entry("guidance", "", "scores against the guidance scale", "two guidance scales"),
    "averages": Entry("averages", "", "scores of averages of the weights over their width", "two averages"),
    "settings": Entry(
        "settings", "", "score and loss against a setting such as the learning rate", "a setting of two values"
    ),
    "transfer": Entry(
        "transfer",
        "",
        "loss over the learning rate by width, and how the best rate drifts",
        "two widths at three rates",
    ),
}


def named(text: str) -> str:
    """The name in the `CATALOGUE` that `text` stands for: gflops-vs-fid, gflops_vs_fid, 8, fig8 or "Fig. 8".

    Raises:
        ResultsError: lists the accepted names.
    """
    plain = _plain(text)
    for name, entry in CATALOGUE.items():
        number = _plain(entry.number)
        if plain in {_plain(name), _plain(entry.module), number, number.removeprefix("fig")} - {""}:
            return name
    raise ResultsError(f"{text}: no such figure; accepted: {ALL}, {', '.join(CATALOGUE)}, and the paper's numbers")


def _plain(text: str) -> str:
    """Without case, blanks and punctuation: fig8, gflopsvsfid."""
    letters = "".join(character for character in text.lower() if character.isalnum())
    return re.sub("^figure", "fig", letters)


def picture(name: str, sources: Sequence[Source], width: Width = "two") -> Picture:
    """The figure `name` of the `CATALOGUE`, drawn from `sources`.

    Raises:
        NothingToDraw: no source has what the figure shows; the message says what would be needed.
        ResultsError: unknown name, scores that are not finite or not comparable.
    """
    from analysis.figures.baselines import explained

    entry = CATALOGUE[named(name)]
    drawn = importlib.import_module(f"analysis.figures.{entry.module}").draw(sources, width)
    return replace(explained(drawn, sources), title=entry.shows[0].upper() + entry.shows[1:])


def draw(name: str, sources: Sequence[Source], out: Path, width: Width = "two", caption: Caption = "short") -> Drawn:
    """Write the `picture` into the folder `out`, with `caption` in it.

    Raises:
        NothingToDraw, ResultsError: see `picture`.
    """
    from analysis.drawing import write

    drawn = picture(name, sources, width)
    return Drawn(write.write_picture(drawn, out, caption), list(drawn.left_out))


def draw_available(sources: Sequence[Source], out: Path, width: Width = "two", caption: Caption = "short") -> Drawn:
    """Draw every figure that `sources` have data for; `left_out` says of each other one what it would need.

    Raises:
        NothingToDraw, ResultsError: see `available`.
    """
    from analysis.drawing import style, write
    from analysis.processes import by_all_processors
    from analysis.results.files import write_whole

    def attempt(name: str) -> tuple[dict[str, bytes], list[str]] | NothingToDraw:
        try:
            drawn = picture(name, sources, width)
        except NothingToDraw as error:
            return error
        return write.files(drawn, caption), list(drawn.left_out)

    with style.look():  # loaded once, not by each process for itself
        for module in ("matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf"):
            importlib.import_module(module)
    attempts = dict(zip(CATALOGUE, by_all_processors(attempt, list(CATALOGUE)), strict=True))
    left_out = _left_out(
        {name: each if isinstance(each, NothingToDraw) else each[1] for name, each in attempts.items()}
    )
    found = [each[0] for each in attempts.values() if not isinstance(each, NothingToDraw)]
    paths = [write_whole(out / name, content) for files in found for name, content in files.items()]
    return Drawn(paths, left_out)


def available(sources: Sequence[Source], width: Width = "two") -> tuple[dict[str, Picture], list[str]]:
    """The figures that `sources` have data for, by name; and in lines what each other one would need.

    Raises:
        NothingToDraw: there is data for none.
        ResultsError: scores that are not finite or not comparable.
    """
    pictures: dict[str, Picture] = {}
    without: dict[str, NothingToDraw | Sequence[str]] = {}
    for name in CATALOGUE:
        try:
            pictures[name] = picture(name, sources, width)
            without[name] = pictures[name].left_out
        except NothingToDraw as error:
            without[name] = error
    return pictures, _left_out(without)


def _left_out(without: Mapping[str, NothingToDraw | Sequence[str]]) -> list[str]:
    """Why figures are not drawn, or what without, in a line a reason.

    Raises:
        NothingToDraw: none is drawn.
    """
    names: dict[str, list[str]] = {}
    for name, reasons in without.items():
        is_drawn = not isinstance(reasons, NothingToDraw)
        for reason in [f"drawn without {each}" for each in reasons] if is_drawn else [f"not drawn: {reasons}"]:
            names.setdefault(reason, []).append(name)
    lines = [f"{', '.join(those)}: {reason}" for reason, those in names.items()]
    if all(isinstance(reasons, NothingToDraw) for reasons in without.values()):
        raise NothingToDraw("; ".join(lines))
    return lines


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
