"""Samples of every model from the same noise and labels, each a small image of its own; clips move."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.drawing.write import FRAME_MS
from analysis.figures.samples import CLIPS
from analysis.report.study import Study
from analysis.report.tables import number

if TYPE_CHECKING:
    from PIL import Image

LARGEST = 96  # pixels a side; larger samples are shown smaller, so that a page stays one that can be sent


@dataclass(frozen=True)
class Strip:
    """A model's samples side by side: its name, what is known of it, and the picture as a data: URL."""

    label: str
    said: str
    alt: str
    url: str
    width: int
    height: int


def strips(study: Study) -> tuple[list[Strip], str]:
    """Of the smallest seed of each model that has samples, by compute; and in words, what they are."""
    runs = study.source.tables.runs
    runs = runs.loc[runs["run"].isin(list(study.tables.samples))].sort_values(["gmacs", "seed"])
    runs = runs.loc[runs["seed"] == runs["seed"].min()].drop_duplicates("label")
    found = []
    for row in runs.to_dict("records"):
        samples = study.tables.samples[row["run"]]
        said = _score(study, row["run"])
        alt = f"{len(samples)} {'moving ' if samples.ndim == CLIPS else ''}samples of {row['label']}"
        found.append(Strip(row["label"], said, alt, *_image(samples)))
    if not found:
        return [], "No run has samples in the tables."
    shown = "Not chosen: the first ten classes, from the same noise for every model"
    seed = f"seed {runs['seed'].iloc[0]}"
    return found, f"{shown}, at each run's last scored step, {seed}; by compute, least first."


def _score(study: Study, run: str) -> str:
    if study.metric is None:
        return ""
    rows = study.scores(study.metric)
    rows = rows.loc[rows["run"] == run]
    return f"{study.called(study.metric)} {number(rows[study.metric].iloc[-1])}" if len(rows) else ""


def _image(samples: np.ndarray) -> tuple[str, int, int]:
    """(N, C, H, W) uint8 or clips (N, C, T, H, W) side by side, a gap between: a data: URL, its width and height."""
    is_clip = samples.ndim == CLIPS
    frames = [_strip(images) for images in (np.moveaxis(samples, 2, 0) if is_clip else [samples])]
    moving: dict[str, Any] = {}
    if is_clip:
        moving = {"save_all": True, "append_images": frames[1:], "duration": FRAME_MS, "loop": 0}
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", lossless=samples.shape[-2] <= LARGEST, quality=80, **moving)
    width, height = frames[0].size
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}", width, height


def _strip(samples: np.ndarray) -> Image.Image:
    """(N, C, H, W) uint8 side by side, a gap between them."""
    from PIL import Image

    count, channels, height, width = samples.shape
    gap = max(1, width // 16)
    strip = np.zeros((height, count * (width + gap) - gap, channels + 1), np.uint8)
    for index, sample in enumerate(samples):
        left = index * (width + gap)
        strip[:, left : left + width] = np.concatenate([sample, np.full((1, height, width), 255, np.uint8)]).transpose(
            1, 2, 0
        )
    image = Image.fromarray(strip if channels == 3 else strip[..., [0, -1]], "RGBA" if channels == 3 else "LA")
    if height > LARGEST:
        image = image.resize((image.width * LARGEST // height, LARGEST), Image.Resampling.LANCZOS)
    return image
