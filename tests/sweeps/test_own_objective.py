"""An objective of one's own with another process than the built-in one is tried by a sampler that serves both."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_parts import small_study

from bench.errors import InputError
from bench.samplers import SAMPLERS
from sweeps.own.part import keep_part
from sweeps.own.study import OwnStudy, own_study

FLOW = """
from bench.objectives.flow import Flow
class Mine(Flow): ...
"""
STEPS = """
from bench.objectives.iddpm import IDDPM
class Mine(IDDPM): ...
"""
DISCRETE_ONLY = {"ddpm": "bench.samplers.ddpm:DDPM", "ddim": "bench.samplers.ddim:DDIM"}


def study_of(text: str, samplers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> OwnStudy:
    Path("mine.py").write_text(text, encoding="utf-8")
    small_study(Path(), monkeypatch)
    # The last first: they come back the other way round, so that the first stays the default for all later tests.
    for name in reversed(list(SAMPLERS.builtin)):
        monkeypatch.delitem(SAMPLERS.builtin, name)  # pyright: ignore
    for name, path in samplers.items():
        monkeypatch.setitem(SAMPLERS.builtin, name, path)  # pyright: ignore
    return own_study(keep_part("mine.py", None, None, Path("kept")), 1)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("text", "sampler"), [(FLOW, "euler"), (STEPS, "ddpm")])
def test_both_are_sampled_alike(text: str, sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(text, {**DISCRETE_ONLY, "euler": "bench.samplers.ode:EULER"}, monkeypatch)
    assert {recipe.evaluation.sampler for recipe in [*study.built_in, *study.own]} == {sampler}
    assert {recipe.diffusion.objective for recipe in study.built_in} == {"iddpm"}


def test_without_such_a_sampler_it_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as error:
        study_of(FLOW, DISCRETE_ONLY, monkeypatch)
    assert "\n" not in str(error.value)
    assert "evaluation.sampler: ddpm samples discrete processes" in str(error.value)
