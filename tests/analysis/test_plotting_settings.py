"""Pictures are of the tables alone: what a user's plotting settings say, soundly or not, is in none of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from analysis import figures
from analysis.drawing import style
from analysis.figures.sources import published_source

ROOT = Path(__file__).parents[2]
THEIRS: dict[Any, Any] = {
    "text.usetex": True,
    "font.family": "monospace",
    "font.size": 30,
    "savefig.dpi": 30,
    "savefig.bbox": "tight",
    "savefig.transparent": True,
    "figure.facecolor": "black",
    "axes.formatter.use_locale": True,
    "axes.formatter.min_exponent": 5,
    "axes.xmargin": 0.4,
    "lines.markersize": 20,
    "path.sketch": (10, 10, 10),
    "pdf.compression": 0,
    "pdf.use14corefonts": True,
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published figures of two kinds of axes, drawn without any settings."""
    out = tmp_path_factory.mktemp("plain")
    draw(out)
    return out


def draw(out: Path) -> None:
    for name in ("training-compute", "blocks"):
        figures.draw(name, [published_source()], out)


def same(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in one.iterdir())
    return names == sorted(path.name for path in other.iterdir()) and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names
    )


@pytest.mark.slow  # two seconds
def test_settings_made_before_change_nothing_and_come_back(tmp_path: Path, plain: Path) -> None:
    with matplotlib.rc_context(THEIRS):
        draw(tmp_path)
        assert {name: matplotlib.rcParams[name] for name in ("font.size", "text.usetex")} == {
            "font.size": 30,
            "text.usetex": True,
        }
    assert same(tmp_path, plain)


def test_variables_are_as_they_were_after_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    before = dict(os.environ)
    with style.look():
        pass
    assert dict(os.environ) == before


def hostile(folder: Path) -> tuple[Path, dict[str, str]]:
    """A working folder and variables that are wrong in every way that matplotlib knows."""
    here, settings = folder / "here", folder / "settings"
    here.mkdir()
    settings.mkdir()
    (here / "matplotlibrc").write_bytes(b"text.usetex: true\nfont.size: 40\n\xff\xfe: no text\n")
    (settings / "matplotlibrc").write_text("no such key: 1\nsavefig.dpi: many\nfont.size: 40\n")
    not_a_folder = folder / "file"
    not_a_folder.touch()
    variables = {
        "MPLBACKEND": "nonsense",
        "MATPLOTLIBRC": str(settings),
        "MPLCONFIGDIR": str(not_a_folder / "below"),
        "HOME": str(not_a_folder),
        "XDG_CONFIG_HOME": str(not_a_folder),
        "XDG_CACHE_HOME": str(not_a_folder),
        "SOURCE_DATE_EPOCH": "yesterday",
        "LC_ALL": "C",
        "PYTHONPATH": str(ROOT),
    }
    return here, {**os.environ, **variables}


def ditbench(here: Path, variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from ditbench import main; main()"
    command = [sys.executable, "-P", "-c", code, *arguments]
    return subprocess.run(command, cwd=here, env=variables, capture_output=True, text=True)


@pytest.mark.slow
def test_broken_settings_neither_end_a_command_nor_change_a_byte(tmp_path: Path, plain: Path) -> None:
    here, variables = hostile(tmp_path)
    for name in ("training-compute", "blocks"):
        done = ditbench(here, variables, "figure", name, "--out", "out")
        assert (done.returncode, done.stderr) == (0, "")
    assert same(here / "out", plain)


OWN = """
import matplotlib.pyplot as plt
import pandas as pd
from analysis.drawing.picture import Picture

def draw(sources, width):
    figure, axes = plt.subplots()
    axes.plot([1, 10, 1000], [1, 2, 3])
    axes.set_xscale("log")
    axes.set_title(r"$\\alpha$")
    return Picture("own", figure, pd.DataFrame({"x": [1]}), "", "")
"""


@pytest.mark.slow
def test_a_figure_of_ones_own_is_drawn_without_them_as_well(tmp_path: Path) -> None:
    here, variables = hostile(tmp_path)
    (here / "mine.py").write_text(OWN)
    variables["PYTHONPATH"] += os.pathsep + str(here)
    sound = {**os.environ, "PYTHONPATH": variables["PYTHONPATH"]}
    for settings, out in ((variables, "theirs"), (sound, "plain")):
        done = ditbench(
            tmp_path if out == "plain" else here, settings, "figure", "mine:draw", "--out", str(tmp_path / out)
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert same(tmp_path / "theirs", tmp_path / "plain")
