"""Objectives and samplers are found by name: nothing outside their folders, presets, tests and studies names one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.objectives import OBJECTIVES
from bench.samplers import SAMPLERS
from models.parts import Seam

ROOT = Path(__file__).parents[1]
FOLDERS = ("models", "bench", "sweeps", "analysis")
# The last has what others do in the place of ours.
OWN_FOLDERS = tuple(ROOT / "bench" / folder for folder in ("objectives", "samplers", "perf/contenders"))
# (file, name): why it stands there all the same.
EXCEPTIONS = {
    **dict.fromkeys(
        (("models/files/checkpoint_facts.py", name) for name in ("iddpm", "ddpm", "flow")),
        "words that the files of others say, whatever ours are called; models import no objective",
    ),
    **{
        ("analysis/results/sampled.py", name): "how captions write it; analysis imports no bench"
        for name in SAMPLERS.builtin
    },
    ("analysis/results/run_folders.py", "iddpm"): "of tables from before there was a second; analysis imports no bench",
}

OF_LIBRARIES = "TensorFlow|flow_style"  # the latter PyYAML's


def plain(text: str) -> str:
    """Its words in lower case, a space before and after each: snake and camel case are several."""
    of_ours = re.sub(OF_LIBRARIES, "", text)
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", of_ours)
    return f" {' '.join(re.findall('[a-z0-9]+', apart.lower()))} "


def spellings(seam: Seam, name: str) -> set[str]:
    """A part's name, the file that it is in and what it is called there, as `plain` words."""
    module, _, attribute = seam.builtin[name].partition(":")
    return {plain(name), plain(module.rpartition(".")[2]), plain(attribute)}


def named(files: dict[str, str]) -> set[tuple[str, str]]:
    """(file, name) of what the contents of `files` name, in code, comments and docstrings."""
    parts = {name: spellings(seam, name) for seam in (OBJECTIVES, SAMPLERS) for name in seam.builtin}
    texts = {file: plain(content) for file, content in files.items()}
    return {
        (file, name)
        for file, text in texts.items()
        for name, words in parts.items()
        if any(spelling in text for spelling in words)
    }


def other_files() -> dict[str, str]:
    files = [*ROOT.glob("*.py"), *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))]
    others = [file for file in files if not any(file.is_relative_to(folder) for folder in OWN_FOLDERS)]
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in others}


def test_no_other_file_names_an_objective_or_a_sampler() -> None:
    files = other_files()
    assert len(files) > 100
    assert named(files) == set(EXCEPTIONS)


@pytest.mark.parametrize("seam", [OBJECTIVES, SAMPLERS], ids=["objectives", "samplers"])
def test_every_built_in_would_be_found_however_it_is_written(seam: Seam) -> None:
    for name, path in seam.builtin.items():
        module, _, attribute = path.partition(":")
        for text in (
            f'x = "{name} eta=0.5"',
            f"# {name.upper()}.",
            f"import {module} as part",
            f"my{attribute}Steps()",
        ):
            assert ("file.py", name) in named({"file.py": text}), text


def test_other_words_are_not_taken_for_names() -> None:
    assert not named({"file.py": "an overflow of the workflow; OverflowError; reflow_text"})
