"""Samplers in captions, tables and reports are spelled as in their scores' key, options too; a paper's in capitals."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_folders import collect, evaluation, write_lines, write_run

from analysis.figures import captions
from analysis.figures.scores import Scores
from analysis.figures.sources import measured, published_source
from analysis.paper.tables import protocol
from analysis.report.scores import protocol as of_report
from analysis.results.tables import Tables


def tables(folder: Path, sampler: str) -> Tables:
    write_lines(write_run(folder / "runs", "S/4") / "evals.jsonl", [evaluation("S/4", 500, sampler=sampler)])
    return collect(folder / "runs", folder / "results")


@pytest.mark.parametrize(
    ("sampler", "name", "options", "short"),
    [
        ("ddpm", "ddpm", "", "ddpm"),
        ("heun shift=3.0", "heun", ", shift 3.0", "heun"),
        ("sde diffusion=a_b last_step=None", "sde", ", diffusion a_b, last step None", "sde"),
        ("mine.file:Last x=[1, 2] y=b=c d", "mine.file:Last", ", x [1, 2], y b=c d", "Last"),
    ],
)
def test_every_text_has_the_name_and_the_options(
    tmp_path: Path, sampler: str, name: str, options: str, short: str
) -> None:
    found = tables(tmp_path, sampler)
    source = measured(found)
    scores = Scores(source, source.tables.evals)
    assert captions.in_short([scores]).startswith(f"Scores of 1,000 samples, drawn in 250 {short} steps{options}, w")
    for text in (captions.protocol(scores), protocol(found), of_report(found)["words"]):
        assert f" {name} sampler{options}, " in text


def test_a_paper_s_are_those_of_its_table() -> None:
    source = published_source()
    scores = Scores(source, source.tables.evals)
    assert "drawn in 250 DDPM steps, without guidance" in captions.in_short([scores])
    assert ", 250 DDPM steps, no guidance" in captions.protocols([scores])
    other = Scores(source, source.tables.evals.assign(sampler="ddim", sampling_steps=50, network_calls=50))
    assert ", 50 DDIM steps, no guidance" in captions.protocols([other])
