"""A search over averages and guidance: what it chooses, what its rows say, and what is never scored twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Ended, ditbench
from recipes import tiny
from runs import SPEEDS, finished

from analysis.compare.one_key import by_setting, of_one_key
from analysis.errors import ResultsError
from analysis.results import tables
from bench.files import jsonl
from bench.files.run_files import read_records
from bench.files.run_folder import locked, weights_path
from bench.files.scored import unscored
from bench.files.verify_run import verify_run
from bench.recipe import Recipe
from bench.score import search as search_module
from bench.score.search import few_scores, full_score

TRAIN = {"ema_decays": [0, 0.5], "ema_stds": [0.05, 0.1], "ema_snapshot_every": 4}
# So much guidance that it is seen after twelve steps; of none, two intervals are one combination.
AXES = ["--ema", "raw", "--ema", "std=0.08", "--guidance-scale", 1, "--guidance-scale", 3000]
AXES += ["--guidance-interval", 0, 500, "--guidance-interval", 400, 999, "--num-samples", 40]
COMBINATIONS = 6


def recipe(**changes: Any) -> Recipe:
    return tiny(train=TRAIN, evaluation={"sampling_steps": 2}, **changes)


@pytest.fixture(scope="module")
def made(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = tmp_path_factory.mktemp("search") / "study"
    shutil.copytree(features, study / "features")
    return finished(recipe(), study)


@pytest.fixture(scope="module")
def done(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A searched run, and how its search ended."""
    study = tmp_path_factory.mktemp("searched") / "study"
    shutil.copytree(made.parent, study)
    return study / made.name, ditbench("search", study / made.name, *AXES)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A finished run of its own, to be changed."""
    shutil.copytree(made.parent, tmp_path / "study")
    return tmp_path / "study" / made.name


@pytest.fixture
def searched(done: tuple[Path, Ended], tmp_path: Path) -> Path:
    """A searched run of its own, to be changed."""
    shutil.copytree(done[0].parent, tmp_path / "study")
    return tmp_path / "study" / done[0].name


def rows(folder: Path) -> list[dict[str, Any]]:
    """All but how fast samples were made."""
    found = jsonl.read(folder / "scores.jsonl")
    return [{key: value for key, value in row.items() if key not in SPEEDS} for row in found]


def way(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("weights", "guidance_scale", "guidance_channels", "guidance_interval"))


def mismatches(folder: Path) -> list[str]:
    return [problem for _, problems in verify_run(folder) for problem in problems]


def test_the_best_of_the_few_is_scored_in_full_and_says_of_how_many(done: tuple[Path, Ended]) -> None:
    folder, ended = done
    assert ended.status == 0
    *few, full = rows(folder)
    assert {way(row) for row in few} == {
        *(("raw", 1.0, None, None), ("raw", 3000.0, None, "0 to 500"), ("raw", 3000.0, None, "400 to 999")),
        *(("ema std=0.08", 1.0, None, None), ("ema std=0.08", 3000.0, None, "0 to 500")),
        ("ema std=0.08", 3000.0, None, "400 to 999"),
    }
    assert len(few) == full["best_of"] == COMBINATIONS
    assert not any("best_of" in row for row in few)
    assert ({row["num_samples"] for row in few}, full["num_samples"]) == ({40}, 60)
    assert way(full) == way(min(few, key=lambda row: row["fid"]))
    assert len({row["fid"] for row in few}) == COMBINATIONS


def test_the_table_has_the_chosen_first(done: tuple[Path, Ended]) -> None:
    folder, ended = done
    *few, full = rows(folder)
    shown = [line for line in ended.out.splitlines() if line.startswith(("raw", "ema std"))]
    assert [line.endswith("chosen") for line in shown] == [True] + [False] * (COMBINATIONS - 1)
    assert [float(line.split()[-1]) for line in shown[1:]] == [
        pytest.approx(fid, rel=1e-3) for fid in sorted(row["fid"] for row in few)[1:]
    ]
    assert f"{full['fid']:.4g}" in ended.out.splitlines()[-1]
    assert f"best of {COMBINATIONS}" in ended.out.splitlines()[-1]


def test_a_score_in_full_is_not_of_the_samples_it_was_chosen_by(done: tuple[Path, Ended]) -> None:
    """It is of those that the recipe's `scores` would have, drawn with the run's seed."""
    folder, _ = done
    *few, full = rows(folder)
    chosen = min(few, key=lambda row: row["fid"])
    of_few, of_full = (np.load(folder / row["samples"]) for row in (chosen, full))
    assert not np.array_equal(of_few, of_full[: len(of_few)])
    seeds = [json.loads((folder / f"{row['samples']}.json").read_text())["seed"] for row in (*few, full)]
    assert seeds[-1] == recipe().seed
    assert len({*seeds[:-1]}) == 1
    assert seeds[0] != recipe().seed
    out = folder.parent / "again.npy"
    weights, scale, _, interval = way(full)
    options = ["--guidance-scale", scale, *(["--guidance-interval", *interval.split(" to ")] if interval else [])]
    options += ["--ema", weights.removeprefix("ema "), "--num-samples", 60, "--sampling-steps", 2, "--clip-denoised"]
    assert ditbench("sample", folder, "--out", out, *options, "--guidance-channels", 1).status == 0
    assert np.array_equal(np.load(out), of_full)


def test_a_second_search_scores_nothing_twice(searched: Path) -> None:
    before, files = (searched / "scores.jsonl").read_bytes(), sorted((searched / "samples").iterdir())
    shutil.rmtree(searched / "samples")
    again = ditbench("search", searched, *AXES)
    assert (again.status, again.err) == (0, "")
    assert (searched / "scores.jsonl").read_bytes() == before
    assert not (searched / "samples").exists()
    assert files
    # One more way: that one alone, and the full score is the best of more.
    more = ditbench("search", searched, *AXES, "--ema", "std=0.05", "--ema", "decay=0.5")
    assert more.status == 0
    new = rows(searched)[COMBINATIONS + 1 :]
    assert [row.get("best_of") for row in new] == [None] * COMBINATIONS + [2 * COMBINATIONS]
    assert {row["weights"] for row in new[:-1]} == {"ema std=0.05", "ema decay=0.5"}


def test_ways_that_were_searched_before_are_told(searched: Path) -> None:
    fewer = ditbench("search", searched, "--ema", "raw", "--ema", "std=0.08", "--num-samples", 40)
    assert fewer.status == 0
    assert rows(searched)[-1]["best_of"] == 2
    assert fewer.out.splitlines()[-1].startswith(f"{COMBINATIONS - 2} other combinations")


@pytest.mark.parametrize("number", [0, 1, COMBINATIONS])
def test_an_interrupted_search_keeps_what_was_scored(
    done: tuple[Path, Ended], folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    left = [number]

    def evaluate(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*arguments)

    real = search_module.evaluate
    monkeypatch.setattr(search_module, "evaluate", evaluate)
    ended = ditbench("search", folder, *AXES)
    assert ended.status == 130
    assert "Traceback" not in ended.err
    expected = rows(done[0])
    assert (rows(folder) if number else []) == expected[:number]
    monkeypatch.undo()
    assert ditbench("search", folder, *AXES).status == 0
    assert rows(folder) == expected


def test_a_search_over_one_key_of_a_run_that_is_guided_keeps_its_other_settings(features: Path, tmp_path: Path) -> None:
    shutil.copytree(features, tmp_path / "study" / "features")
    guided = {"guidance_scale": 2.0, "guidance_channels": 1, "guidance_interval": [0, 500], "guide_step": 6}
    folder = finished(tiny(train=TRAIN, evaluation={"sampling_steps": 2, **guided}), tmp_path / "study")
    assert ditbench("search", folder, "--ema", "raw", "--ema", "decay=0.9", "--step", 12).status == 0
    *few, full = rows(folder)
    own = jsonl.read(folder / "evals.jsonl")[1]
    key = ("sampler", "sampling_steps", "guidance_scale", "guidance_channels", "guidance_interval", "guide", "labels")
    assert {tuple(row[name] for name in key) for row in (*few, full)} == {tuple(own[name] for name in key)}
    assert [row["weights"] for row in few] == ["raw", "ema"]
    # As many samples as in full here, of another seed.
    assert {row["num_samples"] for row in (*few, full)} == {60}
    assert few[1]["fid"] != own["fid"]
    if full["weights"] == "ema":
        assert full["fid"] == own["fid"]
    assert mismatches(folder) == []
    found = tables.collect(read_records(folder.parent), tmp_path / "out")
    tables.comparable(found.evals)
    # A key has one score: the run's own stands before one on another draw of it.
    assert found.other_evals.duplicated(["step", *tables.evaluation_keys]).sum() == 0
    assert sorted(found.other_evals["weights"]) == sorted(["raw", full["weights"]])


# --- tables


def test_a_best_of_several_stays_what_it_is_from_the_run_to_its_tables(searched: Path, tmp_path: Path) -> None:
    for found in (tables.collect(read_records(searched.parent), tmp_path / "out"), tables.load(tmp_path / "out")):
        assert found.evals["best_of"].isna().to_numpy().all()
        best = found.other_evals["best_of"]
        assert (best.dropna().tolist(), len(best)) == ([COMBINATIONS], COMBINATIONS + 1)
        tables.comparable(found.other_evals.loc[best.notna()])
        same = found.other_evals.iloc[0].drop("best_of").to_dict()
        with pytest.raises(ResultsError, match="best_of"):
            tables.comparable(found.other_evals.assign(**same))


@pytest.mark.slow
def test_it_is_verified_and_reported(searched: Path, tmp_path: Path) -> None:
    out = tmp_path / "results" / "found"
    for command in ("collect", searched.parent, "--out", out), ("verify", searched, out), ("report", out):
        assert ditbench(*command).status == 0
    assert ditbench("figure", "all", out, "--out", out).status == 0
    assert ditbench("verify", out).status == 0


def test_it_is_not_compared_with_a_plain_score(searched: Path, tmp_path: Path) -> None:
    found = tables.collect(read_records(searched.parent), tmp_path / "out")
    full = found.other_evals.loc[found.other_evals["best_of"].notna()]
    same = found.evals.loc[found.evals["step"] == 12]
    plain = full.assign(best_of=same["best_of"].iloc[0], fid=1.0)  # the same in all else
    one, other = (tables.Tables(found.runs, found.train, evals, {}, full.iloc[:0]) for evals in (full, plain))
    with pytest.raises(ResultsError, match=r"best_of: 6 in chosen, none in plain.*ditbench search"):
        of_one_key({"chosen": one, "plain": other})
    both = tables.Tables(found.runs, found.train, plain.assign(weights="ema"), {}, full.assign(weights="raw"))
    with pytest.raises(ResultsError, match="best_of"):
        of_one_key(by_setting({"a": both}, "weights", None))


@pytest.mark.slow
def test_a_changed_row_is_noticed(searched: Path) -> None:
    path = searched / "scores.jsonl"
    full = jsonl.read(path)[-1]
    for sample in (searched / "samples").glob("step-*[0-9].npy"):  # of the run's own scores, which take as long
        if sample.name not in full["samples"]:
            sample.unlink()
    changes = ({"best_of": 1}, {"guidance_scale": 2.5}, {"weights": "ema decay=0.5"}, {"num_samples": 59}, {"fid": 0.1})
    for changed in ({}, *changes, {"step": "12"}, {"guidance_scale": None}, {"weights": "ema decay=0.7"}):
        path.write_text(json.dumps(full | changed) + "\n")
        assert bool(mismatches(searched)) == bool(changed), changed


def test_the_recipes_scores_are_no_search_and_a_search_is_none_of_them(searched: Path) -> None:
    """The same way to sample, asked for by a recipe later, is a plain score that is missing."""
    full = rows(searched)[-1]
    interval = full["guidance_interval"]
    chosen = {
        "ema": full["weights"].removeprefix("ema "),
        "guidance_scale": full["guidance_scale"],
        "guidance_channels": None,
        "guidance_interval": interval and [float(text) for text in interval.split(" to ")],
        "kept_steps": "last",
    }
    more = Recipe.model_validate({**recipe().model_dump(mode="json"), "scores": [chosen]})
    (missing,) = unscored(more, searched)
    assert missing.samples in full["samples"]
    assert missing.name != full["score"]


# --- what is refused

GUIDED = ["--guidance-scale", 1, "--guidance-scale", 2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "one combination leaves nothing to choose"),
        (["--ema", "raw"], "one combination leaves nothing to choose"),
        (["--guidance-scale", 1, "--ema", "decay=0.9"], "one combination leaves nothing to choose"),
        (["--ema", "raw", "--ema", "decay=0"], "--ema: raw is given twice"),
        (["--ema", "std=0.1", "--ema", "std=0.10"], "--ema: ema std=0.1 is given twice"),
        (["--guidance-scale", 2, "--guidance-scale", 2.0], "--guidance-scale: 2 is given twice"),
        (["--ema", "decay=0.7", "--ema", "raw"], "--ema: decay=0.7 is not kept; accepted: decay=0.9, raw, decay=0.5"),
        (["--ema", "0.1", "--ema", "raw"], "--ema: '0.1'; accepted: raw, decay=D"),
        (["--ema", "std=0.01", "--ema", "raw"], "--ema: std=0.01: made of the 8 snapshots that are there at step 12"),
        (["--ema", "std=0.28", "--ema", "raw", "--step", 6], "made of the 4 snapshots that are there at step 6"),
        (["--ema", "raw", "--ema", "std=0.1", "--step", 4], "--step 4: "),
        (["--guidance-scale", 1, "--guidance-scale", -1], "--guidance-scale: "),
        (["--guidance-scale", 1, "--guidance-scale", "nan"], "--guidance-scale: "),
        ([*GUIDED, "--guidance-channels", 2], "--guidance-channels: 2 is more"),
        (["--guidance-scale", 1, "--ema", "raw", "--guidance-interval", 0, 1], "--guidance-scale: 1 is no guidance"),
        ([*GUIDED, "--guidance-interval", 0, 2000], "--guidance-interval: 0 to 2000"),
        ([*GUIDED, "--guidance-interval", 800, 200], "--guidance-interval: 800 to 200"),
        ([*GUIDED, "--guidance-interval", 8, "--step"], "--guidance-interval 8 --step"),
        ([*GUIDED, "--guidance-interval", 8], "--guidance-interval 8"),
        (["--ema", "raw", "--ema", "std=0.1", "--num-samples", 61], "--num-samples: 61 is more"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused_before_anything_is_scored(
    made: Path, options: list[Any], said: str
) -> None:
    ended = ditbench("search", made, *options)
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert said in ended.err
    assert not (made / "scores.jsonl").exists()


def test_guidance_without_a_null_label_is_refused() -> None:
    without = recipe().model_copy(update={"train": recipe().train.model_copy(update={"label_dropout": 0.0})})
    with pytest.raises(ValueError, match=r"guidance_scale: 2 needs a null label"):
        few_scores(without, 12, {"guidance_scale": [1.0, 2.0]}, None)
    assert len(few_scores(without, 12, {"ema": ["raw", "std=0.1"]}, None)) == 2


def test_a_run_that_is_unfinished_or_has_lost_its_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "finished.json").rename(tmp_path / "finished.json")
    refused = [ditbench("search", folder, *AXES)]
    (tmp_path / "finished.json").rename(folder / "finished.json")
    for state in (folder / "checkpoints").glob("state-*"):
        state.unlink()  # which no score needs
    weights_path(folder / "checkpoints", 4, "ema std=0.1").unlink()
    refused.append(ditbench("search", folder, *AXES))
    shutil.rmtree(folder / "checkpoints")
    refused += [ditbench("search", folder, *AXES), ditbench("search", tmp_path / "none", *AXES)]
    assert [(ended.status, ended.err.count("\n")) for ended in refused] == [(2, 1)] * 4
    assert "ema-std=0.1-00000004.safetensors" in refused[1].err
    assert not (folder / "scores.jsonl").exists()


def test_two_searches_of_a_run_at_once_are_refused(folder: Path) -> None:
    with locked(folder, "scoring"):
        ended = ditbench("search", folder, *AXES)
    assert (ended.status, ended.err.count("\n")) == (1, 1)


def test_another_number_is_another_score() -> None:
    own = recipe()
    few = few_scores(own, 12, {"ema": [None, "raw"]} | {"guidance_scale": [1.0, 2.0]}, 40)
    assert len({score.name for score in few}) == 4
    (as_it_is,) = (score for score in few if score.evaluation.ema is None and score.evaluation.guidance_scale == 1)
    full = full_score(own, as_it_is, 4)
    assert (full.samples, full.best_of, full.seed) == ("", 4, None)  # the run's own samples
    assert full_score(own, as_it_is, 5).name != full.name
    assert {score.best_of for score in few} == {None}
