"""Samples of all models from the same noise and classes, and of some over training (DiT paper, Fig. 7).

Of clips the frames of the first ones stand side by side, as on a film, and all of them move in an animation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.drawing import style
from analysis.drawing.picture import NothingToDraw, Picture
from analysis.drawing.write import DPI
from analysis.errors import ResultsError
from analysis.figures.captions import in_short, keys, protocol
from analysis.figures.scores import Scores, axis_name, scaling_scores
from analysis.figures.sources import Source, from_each

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of the picture's height: rows, and models over training, at most.
MOST_ROWS: dict[style.Width, int] = {"one": 18, "two": 26}
MOST_OVER_TRAINING = 3
SMALL = 16  # pixels: rows of images no larger stand side by side in two columns
SHARP = 3  # times as large, and more: each of an image's pixels is seen, as a square
LONGEST_LABEL = 18  # characters
CLIPS = 5  # dimensions of an array of clips
FILM = 0.78  # of the width, what is left for frames and not for labels and gaps
# Pixels of the written picture.
CHARACTER, PAD, LINE, BETWEEN = 12, 6, 28, 40


@dataclass(frozen=True)
class _Row:
    """Images (N, C, H, W), or clips (N, C, T, H, W), what stands left of them and their score."""

    label: str
    score: str
    images: np.ndarray


@dataclass(frozen=True)
class _Section:
    title: str
    rows: tuple[_Row, ...]


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture sample_grid, of one source.

    A row of classes for each model at its last evaluated step, by compute, and then for some of them over training;
    of the smallest seed, each with its Fréchet distance. Real images stand above, where the tables have them. The .npz
    maps a label ("S/4"), a label and a step ("S/4@150"), and "real" to (10, C, H, W) uint8, or clips (10, C, T, H, W).

    Raises:
        NothingToDraw: no samples yet, or runs that differ in more than size, patch size and seed.
        ResultsError: scores that are not finite or not comparable, or two sources that have samples.
    """
    found, left_out = from_each(sources, _with_samples, by_design=False)
    if len(found) > 1:
        named = ", ".join(scores.source.name for scores in found)
        raise ResultsError(f"samples of {named}: one grid shows one source; accepted: one of them")
    (scores,) = found
    last = scores.evals.drop_duplicates("run", keep="last")
    tables, final = scores.source.tables, Scores(scores.source, last)
    data = {label: tables.samples[run] for label, run in zip(last["label"], last["run"], strict=True)}
    sections = [_models(last, tables.samples)]
    for rows in _over_training(scores, MOST_ROWS[width] - len(last)):
        label, run = str(rows["label"].iloc[0]), str(rows["run"].iloc[0])
        steps = {**tables.earlier_samples[run], int(max(rows["step"])): tables.samples[run]}
        data |= {f"{label}@{step}": steps[step] for step in rows["step"]}
        sections.append(_steps(rows, steps))
    real, classes = _real(scores, data)
    data |= {} if real is None else {"real": real}
    balanced = set(last["labels"]) == {"balanced"}
    names = [str(index % classes) for index in range(len(tables.samples[last["run"].iloc[0]]))] if balanced else []
    score = axis_name([final]).split(" (")[0].removesuffix(" ↓")
    first = tables.samples[last["run"].iloc[0]]
    views = _of_clips(first, width) if first.ndim == CLIPS else [_View()]
    with style.look():
        figure, *animation = [_sheet(*view.of(sections, real, names), width, view.most_columns) for view in views]
    film = ". Frames from left to right; sample_grid.gif shows them moving" if animation else ""
    same = f"Every row from the same noise{' and classes' if balanced else ', with labels drawn at random'}"
    beside = f"At the right, the {score}"
    return Picture(
        "sample_grid",
        figure,
        data,
        f"{same}{film}. {beside}. {in_short([final])}",
        f"{same}, of seed {last['seed'].iloc[0]}{film}. {beside} of all samples of the run. {protocol(final)}",
        keys([final]),
        left_out,
        animation=animation,
    )


@dataclass(frozen=True)
class _View:
    """What of clips is seen in a picture: frame `frame` of each, or all frames of the first `films`; of images all."""

    films: int = 0
    frame: int | None = None

    @property
    def most_columns(self) -> int:
        return 1 if self.films else 2

    def of(
        self, sections: list[_Section], real: np.ndarray | None, names: list[str]
    ) -> tuple[list[_Section], np.ndarray | None, list[str]]:
        """Sections, real images and the names of the columns as this view has them."""
        frames = sections[0].rows[0].images.shape[2]
        seen = [
            replace(section, rows=tuple(replace(row, images=self._images(row.images)) for row in section.rows))
            for section in sections
        ]
        if self.films:
            names = [name for each in names[: self.films] for name in (each, *[""] * (frames - 1))]
        return seen, None if real is None else self._images(real), names

    def _images(self, samples: np.ndarray) -> np.ndarray:
        if self.films:
            return np.moveaxis(samples[: self.films], 2, 1).reshape(-1, samples.shape[1], *samples.shape[3:])
        return samples if self.frame is None else samples[:, :, self.frame]


def _of_clips(clips: np.ndarray, width: style.Width) -> list[_View]:
    """As many films as are still sharp side by side, one at least; and each frame of all clips."""
    number, _, frames, _, side = clips.shape
    room = FILM * style.WIDTHS[width] * DPI
    films = max(1, min(number, int(room // (frames * SHARP * side))))
    return [_View(films=films), *(_View(frame=frame) for frame in range(frames))]


def _with_samples(source: Source) -> Scores:
    """The evaluations of the runs of the smallest seed that have samples."""
    if source.published:
        raise NothingToDraw("no samples to draw: the paper's are not in its tables; needed: a results folder")
    evals = scaling_scores(source).evals
    evals = evals.loc[evals["run"].isin(list(source.tables.samples))]
    if evals.empty:
        raise NothingToDraw("no samples to draw; needed: runs that were scored, with their samples/")
    channels = {images.shape[1] for images in source.tables.samples.values()}
    if not channels <= {1, 3}:
        raise NothingToDraw(f"samples of {max(channels)} channels; needed: grey or colour images")
    return Scores(source, evals.loc[evals["seed"] == evals["seed"].min()])


def _models(last: pd.DataFrame, samples: Mapping[str, np.ndarray]) -> _Section:
    """A row for each model at its last step."""
    steps = sorted(set(last["step"]))
    title = f"After {steps[0]:,} training steps" if len(steps) == 1 else "At each model's last training step"
    rows = last.to_dict("records")
    labels = [row["label"] if len(steps) == 1 else f"{row['label']}, {row['step']:,}" for row in rows]
    return _section(title, rows, labels, [samples[row["run"]] for row in rows])


def _steps(evals: pd.DataFrame, samples: Mapping[int, np.ndarray]) -> _Section:
    """A row for each step of one model."""
    rows = evals.to_dict("records")
    labels = [f"{row['step']:,}" for row in rows]
    title = f"{_shortened(evals['label'].iloc[0])} over training steps"
    return _section(title, rows, labels, [samples[row["step"]] for row in rows])


def _section(title: str, rows: list[Any], labels: list[str], images: list[np.ndarray]) -> _Section:
    texts = [(_shortened(label), f"{row['fid']:.3g}") for label, row in zip(labels, rows, strict=True)]
    return _Section(title, tuple(_Row(*text, its) for text, its in zip(texts, images, strict=True)))


def _shortened(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"


def _over_training(scores: Scores, most_rows: int) -> list[pd.DataFrame]:
    """Evaluations of the models over training that there is room for, from the least to the most compute."""
    earlier = scores.source.tables.earlier_samples
    found: list[pd.DataFrame] = []
    for run, evals in scores.evals.groupby("run", sort=False):
        steps = [*earlier.get(str(run), {}), int(max(evals["step"]))]
        if len(steps) > 1:
            found.append(evals.loc[evals["step"].isin(steps)].drop_duplicates("step"))
    longest = max(map(len, found), default=1)
    count = min(MOST_OVER_TRAINING, len(found), most_rows // longest)
    if count < 1:
        return []
    # One alone: the best.
    chosen = [min(range(len(found)), key=lambda index: found[index]["fid"].iloc[-1])]
    if count > 1:
        chosen = [round(place) for place in np.linspace(0, len(found) - 1, count)]
    return [found[index] for index in chosen]


def _real(scores: Scores, data: Mapping[str, np.ndarray]) -> tuple[np.ndarray | None, int]:
    """Real images of the data, if the tables have any of the samples' shape, and the number of classes."""
    shape = next(iter(data.values())).shape
    real, classes = scores.source.tables.real.get(scores.runs["data"].iloc[0], (None, shape[0]))
    return (real[: shape[0]], classes) if real is not None and real.shape[1:] == shape[1:] else (None, classes)


def _sheet(
    sections: list[_Section], real: np.ndarray | None, names: list[str], width: style.Width, most_columns: int
) -> Figure:
    number, _, height, side = sections[0].rows[0].images.shape
    columns = most_columns if width == "two" and max(height, side) <= SMALL else 1
    flowing = _in_columns(sections, columns)
    whole = round(style.WIDTHS[width] * DPI)
    column = (whole - BETWEEN * (columns - 1)) // columns
    rows = [row for section in sections for row in section.rows]
    left = CHARACTER * max(len("class"), *(len(row.label) for row in rows)) + 2 * PAD
    right = CHARACTER * max(len(row.score) for row in rows) + PAD
    place = (column - left - right) // number  # of an image and the gap after it
    gap = max(2, place // 12)
    scale = (place - gap) / side
    size = (round(scale * height), round(scale * side))
    if scale >= SHARP:  # whole pixels, so that they stay sharp
        scale = int(scale)
        size = (scale * height, scale * side)
    head = (LINE if names else 0) + (0 if real is None else size[0] + 2 * gap) + gap
    heights = [sum(LINE + gap + len(section.rows) * (size[0] + gap) for section in its) for its in flowing]
    total = head + max(heights) + gap
    figure = style.new_figure(width, total / DPI)
    figure.set_layout_engine(None)
    sheet = _Drawing(figure, whole, total, left, right, gap, size, place=size[1] + gap)
    for index, its in enumerate(flowing):
        start, top = index * (column + BETWEEN), 0
        if names:
            sheet.classes(start, top, names)
            top += LINE
        if real is not None:
            sheet.rows(start, top, [_Row("real", "", real)])
            top += size[0] + 2 * gap
        top += gap
        for section in its:
            sheet.text(start + left, top + LINE / 2, section.title, "left", fontsize=8)
            sheet.rows(start, top + LINE + gap, section.rows)
            top += LINE + gap + len(section.rows) * (size[0] + gap)
    return figure


def _in_columns(sections: list[_Section], columns: int) -> list[list[_Section]]:
    """The sections one after the other, cut into columns of about the same height."""
    if columns == 1:
        return [sections]
    if len(sections) == 1:
        (whole,) = sections
        half = -(-len(whole.rows) // 2)
        parts = (whole.rows[:half], whole.rows[half:])
        return [[_Section(whole.title if index == 0 else "", part)] for index, part in enumerate(parts) if part]

    def tallest(cut: int) -> int:
        return max(sum(len(section.rows) + 1 for section in part) for part in (sections[:cut], sections[cut:]))

    cut = min(range(1, len(sections)), key=tallest)
    return [sections[:cut], sections[cut:]]


@dataclass(frozen=True)
class _Drawing:
    """A sheet of so many pixels: places are pixels from its upper left corner."""

    figure: Figure
    width: int
    height: int
    left: int
    right: int
    gap: int
    size: tuple[int, int]  # of an image: height, width
    place: int  # from one image to the next

    def text(self, x: float, y: float, text: str, align: Any, **look: Any) -> None:
        self.figure.text(x / self.width, 1 - y / self.height, text, ha=align, va="center_baseline", **look)

    def classes(self, start: int, top: int, names: list[str]) -> None:
        self.text(start + self.left - PAD, top + LINE / 2, "class", "right", fontsize=7, color="#555555")
        for index, name in enumerate(names):
            at = start + self.left + index * self.place + self.size[1] / 2
            self.text(at, top + LINE / 2, name, "center", fontsize=7.5)

    def rows(self, start: int, top: int, rows: Sequence[_Row]) -> None:
        """The images of all rows as one picture, between what is said of them."""
        montage = _montage([row.images for row in rows], self.size, self.gap)
        height, width = montage.shape[:2]
        axes = self.figure.add_axes(
            (
                (start + self.left) / self.width,
                1 - (top + height) / self.height,
                width / self.width,
                height / self.height,
            )
        )
        axes.set_axis_off()
        axes.imshow(montage, cmap="gray", vmin=0, vmax=255, interpolation="none", aspect="auto")
        for index, row in enumerate(rows):
            middle = top + index * (self.size[0] + self.gap) + self.size[0] / 2
            self.text(start + self.left - PAD, middle, row.label, "right", fontsize=7.5)
            self.text(start + self.left + width + PAD, middle, row.score, "left", fontsize=7, color="#555555")


def _montage(rows: Sequence[np.ndarray], size: tuple[int, int], gap: int) -> np.ndarray:
    """Rows of images (N, C, H, W) with white gaps, each image of `size`: (rows, columns, 3)."""
    height, width = size
    number = max(map(len, rows))
    picture = np.full((len(rows) * (height + gap) - gap, number * (width + gap) - gap, 3), 255, np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            top, left = row * (height + gap), column * (width + gap)
            picture[top : top + height, left : left + width] = _resized(image, size)
    return picture


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(C, H, W) -> (height, width, 3): each pixel repeated, means of pixels, or, where neither will do, smooth."""
    from PIL import Image

    colours = np.broadcast_to(image.transpose(1, 2, 0), (*image.shape[1:], 3))
    blocks = size[0] % image.shape[1] == 0 or size[0] < image.shape[1]
    how = Image.Resampling.BOX if blocks else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(np.ascontiguousarray(colours)).resize((size[1], size[0]), how))
