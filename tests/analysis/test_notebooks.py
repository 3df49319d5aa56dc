"""The committed notebooks: the cells of their text, the same outputs when executed again, nothing of one machine."""

from __future__ import annotations

import base64
import getpass
import io
import re
import tempfile
from decimal import Decimal
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat import NotebookNode
from PIL import Image

from analysis.notebooks.execute import FOLDER, execute, read_text, text_notebooks

# How many figures each shows.
PICTURES = {"blocks": 1, "families": 1, "fits": 2, "gflops": 2, "sampling-compute": 2, "scaling": 4}
LARGEST = 400_000  # bytes
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
MOST_PIXELS_APART = 0.01  # share of pixels that may differ visibly: a label moves where a number's last digit does
VISIBLE = 32  # of 255
NO_TORCH = "import sys\n\nassert 'torch' not in sys.modules"


def committed(name: str) -> NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def differences(text: str, other: str) -> list[tuple[str, str]]:
    """Where two printed texts differ: words exactly, whole numbers too, others by more than one of their last digit.

    Sums are rounded otherwise on other CPUs, and so is what is printed of them.
    """
    words, other_words = NUMBER.split(text), NUMBER.split(other)
    if words != other_words:
        return [(text, other)]
    numbers = zip(NUMBER.findall(text), NUMBER.findall(other), strict=True)
    return [(one, another) for one, another in numbers if not close(one, another)]


def close(one: str, other: str) -> bool:
    first, second = (Decimal(text.replace(",", "")) for text in (one, other))
    if first == second or not re.search("[.e]", one + other):
        return first == second
    last = max(Decimal(1).scaleb(int(number.as_tuple().exponent)) for number in (first, second) if number != 0)
    return abs(first - second) <= last


def pixels(png: str) -> np.ndarray:
    """(height, width, 3)."""
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def pictures(notebook: NotebookNode) -> list[np.ndarray]:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [pixels(output.data["image/png"]) for output in outputs if "image/png" in output.get("data", {})]


def texts(notebook: NotebookNode) -> list[str]:
    """What each cell printed and showed; of a picture, only that there is one."""
    return ["\n".join(map(as_text, cell.outputs)) for cell in notebook.cells if cell.cell_type == "code"]


def as_text(output: NotebookNode) -> str:
    if output.output_type == "stream":
        return f"{output.name}: {output.text}"
    return "\n".join(f"{kind}: {output.data[kind] if kind != 'image/png' else ''}" for kind in sorted(output.data))


def test_the_notebooks_are_all_there() -> None:
    assert [path.stem for path in text_notebooks()] == sorted(PICTURES)
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_text_and_notebook_have_the_same_cells(name: str) -> None:
    notebook, text = committed(name), read_text(FOLDER / f"{name}.md")
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert [output.output_type for output in cell.outputs if output.output_type == "error"] == []
            cell.outputs, cell.execution_count = [], None
    assert notebook == text, "run `make notebooks`"


@pytest.mark.notebooks
@pytest.mark.parametrize("name", PICTURES)
def test_executed_again_it_says_and_shows_the_same(name: str) -> None:
    again, before = read_text(FOLDER / f"{name}.md"), committed(name)
    again.cells.append(nbformat.v4.new_code_cell(NO_TORCH))
    execute(again)
    del again.cells[-1]
    for text, new_text in zip(texts(before), texts(again), strict=True):
        assert differences(text, new_text) == [], "run `make notebooks`"
    for picture, new_picture in zip(pictures(before), pictures(again), strict=True):
        assert picture.shape == new_picture.shape
        assert np.mean(np.abs(picture - new_picture).max(axis=2) > VISIBLE) < MOST_PIXELS_APART


@pytest.mark.parametrize("name", PICTURES)
def test_it_is_committed_with_its_pictures_and_nothing_of_one_machine(name: str) -> None:
    content = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert len(content) < LARGEST
    found = pictures(committed(name))
    assert len(found) == PICTURES[name]
    for picture in found:
        assert picture.shape[1] == 1350  # two columns of a paper at 200 dots an inch
        assert picture.std() > 10  # not blank
    for secret in (str(Path.home()), str(FOLDER.parents[1]), tempfile.gettempdir(), f"/{getpass.getuser()}/"):
        assert secret not in content
    for cell in committed(name).cells:
        assert cell.metadata == {}
        assert all(output.get("name") != "stderr" for output in cell.get("outputs", []))


@pytest.mark.parametrize("name", PICTURES)
def test_measured_numbers_are_printed_and_not_typed(name: str) -> None:
    for cell in committed(name).cells:
        if cell.cell_type == "markdown":
            assert re.findall(r"\d\.\d", re.sub(r"arXiv:[\d.]+", "", cell.source)) == []


def test_a_changed_number_or_word_is_a_difference() -> None:
    assert differences("r = -0.930, 12 models, A 2.326e+04", "r = -0.931, 12 models, A 2.327e+04") == []
    assert differences("r = -0.930", "r = -0.932") == [("0.930", "0.932")]
    assert differences("r = -0.930", "r = 0.930") == [("r = -0.930", "r = 0.930")]
    assert differences("8 of 9", "9 of 9") == [("8", "9")]
    assert differences("1,281 GMACs", "1,282 GMACs") == [("1,281", "1,282")]
    assert differences("status: ok", "status: not converged") == [("status: ok", "status: not converged")]
    assert differences("E 0", "E 0.01") == []
    assert differences("E 0", "E 0.02") == [("0", "0.02")]
