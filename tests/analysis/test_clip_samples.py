"""Pictures of clips: films in the sample grid, a GIF of it that moves, and moving samples in the report."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.image import imread
from PIL import Image, ImageSequence
from run_folders import collect, write_run

from analysis.drawing.write import animated
from analysis.figures import draw
from analysis.figures.sources import measured
from analysis.report.samples import strips
from analysis.report.study import Study
from analysis.results.tables import Tables, load
from bench.data.clips.moving_digits import SHAPE

FRAMES, SIDE = SHAPE[1], SHAPE[2]


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Of two models, whose samples are noise."""
    for label in ("S/4", "B/2"):
        folder = write_run(tmp_path / "runs", label, steps=(500, 1000))
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["recipe"]["data"]["name"] = "moving-digits"
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        random = np.random.default_rng(len(label))
        for path in folder.glob("samples/*.npy"):
            np.save(path, random.integers(0, 256, (12, *SHAPE), dtype=np.uint8))
    collect(tmp_path / "runs", tmp_path / "results")
    return load(tmp_path / "results")


def frames_of(gif: Path) -> list[np.ndarray]:
    with Image.open(gif) as image:
        return [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(image)]


def places(picture: np.ndarray, image: np.ndarray) -> list[tuple[int, int, int]]:
    """(k, y, x): where an image (H, W) is in a picture, k times as large."""
    found = []
    for k in range(2, 8):
        height, width = (k * side for side in image.shape)
        rows, columns = picture.shape[0] - height + 1, picture.shape[1] - width + 1
        alike = np.ones((rows, columns), bool)
        for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
            top, left = -y * (height - 1), -x * (width - 1)
            alike &= picture[top : top + rows, left : left + columns] == image[y, x]
        block = np.kron(image, np.ones((k, k), np.uint8))
        corners = [(int(y), int(x)) for y, x in np.argwhere(alike)]
        found += [(k, y, x) for y, x in corners if np.array_equal(picture[y : y + height, x : x + width], block)]
    return found


def test_films_stand_in_rows_and_the_gif_shows_each_frame_in_its_place(tables: Tables, tmp_path: Path) -> None:
    drawn = draw("sample-grid", [measured(tables)], tmp_path)
    assert [path.suffix for path in drawn.files] == [".png", ".pdf", ".npz", ".txt", ".tex", ".gif"]
    samples = tables.samples["s40"]
    assert samples.shape == (10, *SHAPE)
    still = np.rint(255 * imread(tmp_path / "sample_grid.png")[..., 0]).astype(np.uint8)
    films = [places(still, samples[0, 0, frame]) for frame in range(FRAMES)]
    assert all(films)
    ((k, top, _), *_) = films[0]
    assert {(size, y) for (size, y, _), *_ in films} == {(k, top)} and k > 1
    assert sorted(x for (_, _, x), *_ in films) == [x for (_, _, x), *_ in films]
    moving = frames_of(tmp_path / "sample_grid.gif")
    assert len(moving) == FRAMES and len({frame.shape for frame in moving}) == 1
    for clip in (samples[7, 0], tables.real["moving-digits"][0][3, 0], tables.earlier_samples["b20"][500][0, 0]):
        ((k, y, x), *_) = places(moving[0], clip[0])
        for frame, image in zip(moving, clip, strict=True):
            assert np.array_equal(frame[y : y + k * SIDE, x : x + k * SIDE], np.kron(image, np.ones((k, k), np.uint8)))


def test_one_column_of_a_paper_has_films_as_well(tables: Tables, tmp_path: Path) -> None:
    draw("sample-grid", [measured(tables)], tmp_path, "one")
    assert len(frames_of(tmp_path / "sample_grid.gif")) == FRAMES


def test_a_gif_has_greys_exactly_colours_nearly_and_the_same_bytes_again() -> None:
    random = np.random.default_rng(0)
    greys = np.repeat(random.integers(0, 256, (3, 20, 30, 1), dtype=np.uint8), 3, axis=3)
    colours = np.kron(random.integers(0, 256, (3, 4, 5, 3), dtype=np.uint8), np.ones((1, 8, 8, 1), np.uint8))
    for frames, most in ((greys, 0), (colours, 24)):
        pngs = []
        for frame in frames:
            buffer = io.BytesIO()
            Image.fromarray(frame).save(buffer, "PNG")
            pngs.append(buffer.getvalue())
        gif = animated(pngs)
        assert gif == animated(pngs)
        with Image.open(io.BytesIO(gif)) as image:
            read = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
            assert image.info["loop"] == 0
        assert len(read) == 3
        assert max(np.abs(a.astype(int) - b).max() for a, b in zip(read, frames, strict=True)) <= most


def test_the_reports_samples_move(tables: Tables) -> None:
    found, _ = strips(Study.of(tables))
    assert len(found) == 2
    by_label = {strip.label: strip for strip in found}
    content = base64.b64decode(by_label["S/4"].url.removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(content)) as image:
        read = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(image)]
    assert len(read) == FRAMES and read[0].shape == (by_label["S/4"].height, by_label["S/4"].width)
    for frame, images in zip(read, np.moveaxis(tables.samples["s40"][:, 0], 1, 0), strict=True):
        for index, image in enumerate(images):
            left = index * (SIDE + max(1, SIDE // 16))
            assert np.array_equal(frame[:, left : left + SIDE], image)
