"""Samplers in captions and reports: the options as a score's key has them; a paper's conditions are its table's."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_folders import collect, evaluation, write_lines, write_run

from analysis.figures import captions
from analysis.figures.scores import Scores
from analysis.figures.sources import measured, published_source
from analysis.report.scores import protocol as of_report
from analysis.results.sampled import sampler_text
from bench.samplers import SAMPLERS


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        ("ddpm", "DDPM"),
        ("heun shift=3.0 order=2", "Heun shift=3.0 order=2"),
        ("dpm-solver++ order=3", "DPM-Solver++ order=3"),
        ("a.file:Mine x=Y:z", "Mine x=Y:z"),
        ("of_a_later_version", "of_a_later_version"),
    ],
)
def test_options_are_as_they_were_given(tmp_path: Path, sampler: str, said: str) -> None:
    write_lines(write_run(tmp_path / "runs", "S/4") / "evals.jsonl", [evaluation("S/4", 500, sampler=sampler)])
    tables = collect(tmp_path / "runs", tmp_path / "results")
    source = measured(tables)
    short = captions.in_short([Scores(source, source.tables.evals)])
    assert short.startswith(f"Scores of 1,000 samples, drawn in 250 {said} steps, w")
    assert f" of the {said} sampler, " in of_report(tables)["words"]


def test_every_sampler_is_written_as_the_field_writes_it() -> None:
    written = {name: sampler_text(name) for name in SAMPLERS.builtin}
    assert {name: text.lower() for name, text in written.items()} == {name: name for name in written}
    assert all(text != name for name, text in written.items())


def test_a_paper_s_conditions_are_those_of_its_table() -> None:
    source = published_source()
    scores = Scores(source, source.tables.evals)
    assert ", 250 DDPM steps, no guidance" in captions.protocols([scores])
    other = Scores(source, source.tables.evals.assign(sampler="ddim", sampling_steps=50, network_calls=50))
    assert ", 50 DDIM steps, no guidance" in captions.protocols([other])
