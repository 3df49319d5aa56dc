"""A score that was chosen as the best of several says so wherever it stands, and stands beside no plain one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from run_folders import collect, evaluation, write_lines, write_run

from analysis.errors import ResultsError
from analysis.figures.captions import in_short, protocol
from analysis.figures.scores import Scores
from analysis.figures.sources import measured
from analysis.figures.varied import varied
from analysis.paper import tables as paper_tables
from analysis.report import scores as report_scores
from analysis.results.published import near_misses_of_evaluations, published_evaluations
from analysis.results.tables import Tables, comparable, load

FEW, FULL = "0a1b2c3d-search", "0a1b2c3d-best-of-12"
GUIDED = {"guidance_scale": 1.5, "guidance_channels": 3}


def collected(tmp_path: Path, rows: list[dict[str, Any]], added: list[dict[str, Any]] | None = None) -> Tables:
    """Of a run with these rows of scores.jsonl and other-evals.jsonl; collected and read back."""
    folder = write_run(tmp_path / "runs", "S/4")
    write_lines(folder / "scores.jsonl", rows)
    write_lines(folder / "other-evals.jsonl", added or [])
    collect(tmp_path / "runs", tmp_path / "results")
    return load(tmp_path / "results")


def row(score: str, **changed: Any) -> dict[str, Any]:
    return {"score": score, **evaluation("S/4", 2000, **changed)}


def test_tables_keep_it_apart_from_the_same_score_that_was_not_chosen(tmp_path: Path) -> None:
    plain, best = row("0a1b2c3d", **GUIDED), row(FULL, **GUIDED, best_of=12)
    found = collected(tmp_path, [plain, best]).other_evals
    assert found["fid"].tolist() == [plain["fid"]] * 2
    assert found["best_of"].tolist() == [pd.NA, 12]
    with pytest.raises(ResultsError, match=r"best_of: .*12"):
        comparable(found)
    comparable(found.tail(1))


def test_two_scores_of_one_key_are_refused_but_for_those_of_a_search(tmp_path: Path) -> None:
    """Which drew its few samples itself: the recipe's own score, or one by hand, stands before them."""
    by_recipe, by_hand = {"num_samples": 500, "fid": 1.0}, {"num_samples": 400, "fid": 2.0}
    rows = [row("0a1b2c3d", **by_recipe), *(row(FEW, num_samples=n, fid=9.0) for n in (500, 400, 1000, 300))]
    found = collected(tmp_path, rows, [evaluation("S/4", 2000, **by_hand)])
    assert sorted(found.other_evals["fid"]) == [1.0, 2.0, 9.0]  # the evaluation has 1000, too
    assert found.other_evals.set_index("num_samples")["fid"].to_dict() == {500: 1.0, 400: 2.0, 300: 9.0}
    write_lines(tmp_path / "runs" / "dit-s-4-s40" / "scores.jsonl", [rows[0], rows[0] | {"fid": 3.0}])
    with pytest.raises(ResultsError, match="step 2000 has two scores for one evaluation"):
        collect(tmp_path / "runs", tmp_path / "results")


def test_captions_and_tables_tell_it(tmp_path: Path) -> None:
    found = collected(tmp_path, [row(FULL, **GUIDED, best_of=12)])
    for evals, is_told in ((found.other_evals, True), (found.evals.tail(1), False)):
        chosen = replace(found, evals=evals)
        scores = Scores(measured(chosen, "found"), measured(chosen, "found").tables.evals)
        texts = [
            protocol(scores),
            in_short([scores]),
            paper_tables.protocol(chosen),
            paper_tables.summary(chosen).conventions,
        ]
        texts.append(report_scores.protocol(chosen)["words"])
        assert ["best of 12" in text for text in texts] == [is_told] * 5
        assert dict(report_scores.protocol(chosen)["key"])["best_of"] == ("12" if is_told else "none")


def test_a_figure_puts_it_in_no_line_with_plain_scores(tmp_path: Path) -> None:
    """Three scales of one key, of which one was chosen: two make a line."""
    rows = [row("0a1b2c3d", **GUIDED), row(FULL, **{**GUIDED, "guidance_scale": 3.0}, best_of=12)]
    (group,) = varied(measured(collected(tmp_path, rows), "found"), "guidance_scale", ignored=("guidance_channels",))
    assert sorted(group.evals["guidance_scale"]) == [1.0, 1.5]


def test_no_published_score_is_one() -> None:
    paper = published_evaluations()
    assert paper["best_of"].isna().to_numpy().all()
    as_published = paper.loc[paper["model"] == "DiT-XL/2"].head(1).assign(label="XL/2", run="x", seed=0)
    assert near_misses_of_evaluations(as_published).empty
    (missed,) = near_misses_of_evaluations(as_published.assign(best_of=12)).to_dict("records")
    assert (missed["condition"], missed["published"], missed["ours"]) == ("best_of", "none", "12")
