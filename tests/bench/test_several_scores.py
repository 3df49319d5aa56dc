"""One training, scored in several ways: each score once, the same whatever others there are, and more later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes import tiny
from runs import SPEEDS, StudyFolder, finished, results, start

from analysis.results import tables
from bench.errors import InputError
from bench.files import jsonl
from bench.files.run_files import read_ends, read_records
from bench.files.run_folder import is_complete, is_finished, read_config, write_config
from bench.files.scored import samples_path, unscored
from bench.files.verify_run import verify_run
from bench.parallel import Execution
from bench.recipe import Recipe, parse_recipe
from bench.run import run, score, train
from bench.schema import parse_yaml
from bench.stopping import Stopped, StopRequest

DDIM = {"sampler": "ddim", "sampling_steps": 3}
# So much that it is seen after twelve steps.
GUIDED = {"guidance_scale": 3000.0, "guidance_channels": None}
SEVERAL = [DDIM, GUIDED]


def several(scores: list[dict[str, Any]] = SEVERAL, **changes: Any) -> Recipe:
    return Recipe.model_validate({**tiny(**changes).model_dump(mode="json"), "scores": scores})


def rows(folder: Path, name: str = "scores.jsonl") -> list[dict[str, Any]]:
    """The scores, without how fast their samples were made and where these are."""
    return [
        {key: value for key, value in row.items() if key not in (*SPEEDS, "score", "samples")}
        for row in jsonl.read(folder / name)
    ]


def everything(folder: Path) -> dict[str, Any]:
    return {**results(folder), "scores": rows(folder)}


def mismatches(folder: Path) -> list[str]:
    return [problem for _, problems in verify_run(folder) for problem in problems]


def test_every_score_equals_that_of_a_run_of_its_own(study: StudyFolder) -> None:
    together = finished(several(), study("together"))
    assert [row["step"] for row in jsonl.read(together / "evals.jsonl")] == [6, 12]
    found = jsonl.read(together / "scores.jsonl")
    assert [(row["step"], row["sampler"], row["guidance_scale"]) for row in found] == [
        *((6, "ddim", 1.0), (6, "ddpm", 3000.0)),
        *((12, "ddim", 1.0), (12, "ddpm", 3000.0)),
    ]
    assert len({row["fid"] for row in [*found, *jsonl.read(together / "evals.jsonl")]}) == 6
    plain = finished(tiny(), study("plain"))
    assert rows(plain, "evals.jsonl") == rows(together, "evals.jsonl")
    for number, evaluation in enumerate(SEVERAL):
        alone = finished(tiny(evaluation=evaluation), study(f"alone-{number}"))
        assert rows(alone, "evals.jsonl") == rows(together)[number::2]
        for row in found[number::2]:
            there, here = (np.load(path, allow_pickle=False) for path in (
                samples_path(alone, row["step"]), together / row["samples"],
            ))  # fmt: skip
            assert np.array_equal(there, here)
    assert mismatches(together) == []
    assert is_finished(together)


@pytest.mark.slow
def test_a_killed_run_makes_every_score_once(study: StudyFolder) -> None:
    recipe, home = several(), study("killed")
    whole = finished(recipe, study("whole"))
    folder = start(recipe, home)
    code = "import sys, torch; torch.set_num_threads(1); from pathlib import Path; from bench.run import run; "
    code += "run(Path(sys.argv[1]), Path(sys.argv[2]))"
    for number in (1, 3):
        process = subprocess.Popen([sys.executable, "-c", code, str(folder), str(home)])
        while process.poll() is None and len(rows(folder)) < number:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    with (folder / "scores.jsonl").open("a") as file:
        file.write('{"score": "torn')
    run(folder, home)
    assert everything(folder) == everything(whole)
    assert mismatches(folder) == []


def test_scores_are_added_to_a_finished_run_without_training(study: StudyFolder) -> None:
    """Also where its training states have been cleared away."""
    home = study("a")
    folder = finished(tiny(), home)
    before = (folder / "train.jsonl").read_bytes()
    for state in (folder / "checkpoints").glob("state-*"):
        state.unlink()
    recipe = several()
    assert recipe.id == tiny().id
    assert is_complete(tiny(), folder)
    assert not is_complete(recipe, folder)
    assert (read_ends(recipe, folder).is_finished, read_ends(recipe, folder).unscored) == (False, 4)
    write_config(recipe, folder)
    assert not is_finished(folder)
    assert read_config(folder) == recipe
    run(folder, home)
    assert is_finished(folder)
    assert (folder / "train.jsonl").read_bytes() == before
    assert not list((folder / "checkpoints").glob("state-*"))
    assert rows(folder) == rows(finished(recipe, study("b")))
    write_config(tiny(), folder)  # fewer again: what is there stays
    assert is_finished(folder)
    assert len(rows(folder)) == 4
    assert mismatches(folder) == []


def test_scores_that_are_added_while_a_run_is_at_work_are_not_forgotten(study: StudyFolder) -> None:
    home = study("a")
    folder = start(tiny(), home)
    run(folder, home, Execution(on_weights=lambda step: write_config(several(), folder)))
    assert not is_finished(folder)
    run(folder, home)
    assert is_finished(folder)
    assert len(rows(folder)) == 4


def test_a_job_of_its_own_makes_all_scores(study: StudyFolder) -> None:
    recipe = several()
    home = study("apart")
    folder = start(recipe, home)
    train(folder, Execution())
    assert len(unscored(recipe, folder)) == 6
    score(folder, home, Execution())
    assert is_finished(folder)
    whole = finished(recipe, study("whole"))
    assert (rows(folder), rows(folder, "evals.jsonl")) == (rows(whole), rows(whole, "evals.jsonl"))


def test_scores_by_other_features_share_the_samples(study: StudyFolder) -> None:
    """And kept_steps says at which steps."""
    recipe = several([{"kid_subset_size": 10, "kept_steps": "last"}, {**DDIM, "kept_steps": [6]}])
    folder = finished(recipe, study("a"))
    found = jsonl.read(folder / "scores.jsonl")
    assert [(row["step"], row["kid_subset_size"]) for row in found] == [(6, 20), (12, 10)]
    assert found[1]["samples"] == "samples/step-00000012.npy"
    assert found[1]["sampling_images_per_s"] is None
    assert len(list((folder / "samples").glob("*.npy"))) == 3
    assert mismatches(folder) == []


def test_lost_weights_take_unfinished_samples_of_every_score_with_them(study: StudyFolder) -> None:
    home = study("a")
    folder = finished(several(), home)
    expected = everything(folder)
    (folder / "finished.json").unlink()
    (folder / "scores.jsonl").unlink()
    weights = folder / "checkpoints" / "ema-00000006.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    for recipe_score in unscored(several(), folder)[:1]:
        path = samples_path(folder, recipe_score.step, recipe_score.samples)
        np.save(path, np.zeros_like(np.load(path, allow_pickle=False)))  # of the weights that are lost
    run(folder, home)
    assert everything(folder) == expected


def test_tables_keep_the_recipes_evaluation_apart(study: StudyFolder, tmp_path: Path) -> None:
    home = study("a")
    folder = finished(several(), home)
    again = {key: value for key, value in jsonl.read(folder / "scores.jsonl")[0].items() if key != "score"}
    jsonl.append(folder / "other-evals.jsonl", {**again, "samples": "elsewhere.npy"})  # the same samples, by hand
    jsonl.append(folder / "other-evals.jsonl", {**again, "guidance_scale": 3.0, "guidance_channels": 1})
    for found in (tables.collect(read_records(home), tmp_path / "out"), tables.load(tmp_path / "out")):
        tables.comparable(found.evals)
        assert found.evals["step"].tolist() == [6, 12]
        assert found.other_evals["guidance_scale"].tolist() == [1.0, 3000.0, 3.0, 1.0, 3000.0]
        assert found.other_evals["fid"].tolist()[:2] == [row["fid"] for row in jsonl.read(folder / "scores.jsonl")[:2]]


# --- what is refused, and what is the same ---


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([DDIM, {"sampler": "ddmi"}], r"scores\[1\]\.sampler: unknown sampler 'ddmi'"),
        ([{"guidance_scale": 2.0}], r"scores\[0\]\.guidance_channels: 3 is more"),
        ([{"sampling_steps": 2000}], r"scores\[0\]\.sampling_steps: 2000 "),
        ([{"sampling_stesp": 3}], r"scores\[0\]\.sampling_stesp: unknown key; accepted: .*sampling_steps.*kept_steps"),
        ([{"decoder": "x"}], r"scores\[0\]\.decoder: digits brings its own"),
        ([{"kid_subset_size": 61}], r"scores\[0\]\.kid_subset_size: 61 is more"),
        ([DDIM, {**DDIM, "sampler_options": {"eta": 0.0}}], r"scores\[1\].*scores\[0\]"),
        ([{"metrics": ["fid"]}], r"scores\[0\].*evaluation"),
        ([{"batch_size": 7}], r"scores\[0\].*evaluation"),
        ([{"guidance_channels": 1}], r"scores\[0\].*evaluation"),
        ([{}], r"scores\[0\]: expected a mapping"),
        (["ddim"], r"scores\[0\]: expected a mapping"),
        (DDIM, r"scores: expected a list"),
        (None, r"scores: expected a list"),
        ([{**DDIM, "kept_steps": [5]}], r"scores\[0\]\.kept_steps: 5 is not kept; accepted: 6, 12"),
        ([{**DDIM, "kept_steps": "first"}], r"scores\[0\]\.kept_steps: 'first'"),
        ([{"product": {"sampler": "ddim"}}], r"scores\[0\]\.product\.sampler: expected a list"),
        ([{"product": {"kept_steps": [6]}}], r"scores\[0\]\.product\.kept_steps: unknown key"),
        ([{"product": {"sampling_steps": [3, 4]}}], r"scores\[0\].*evaluation .*sampling_steps 4"),
        ([{"product": {"sampling_steps": [*range(2, 1500)]}}], r"scores: 1498 scores"),
    ],
)
def test_a_wrong_score_is_named_with_its_place(scores: Any, said: str) -> None:
    with pytest.raises(InputError, match=rf"^x\.yaml: {said}"):
        parse_recipe({**tiny().model_dump(mode="json"), "scores": scores}, "x.yaml")


def test_a_fault_of_the_evaluation_is_not_put_down_to_scores() -> None:
    content = tiny().model_dump(mode="json")
    content["evaluation"]["kid_subset_size"] = 61
    with pytest.raises(InputError, match=r"^x\.yaml: evaluation\.kid_subset_size"):
        parse_recipe({**content, "scores": [DDIM]}, "x.yaml")


def test_a_product_is_written_out_and_reads_back() -> None:
    recipe = several([{"product": {"sampler": ["ddim", "ddpm"], "sampling_steps": [3, 5]}, "kept_steps": [12]}])
    assert [score.get("sampler") for score in recipe.scores] == ["ddim", "ddim", None, None]
    assert [(score.step, score.evaluation.sampling_steps) for score in recipe.wanted_scores()] == [
        *((6, 4), (12, 4)),
        *((12, 3), (12, 5), (12, 3), (12, 5)),
    ]
    assert {score["kept_steps"] for score in recipe.scores} == {"last"}
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
    assert len({score.name for score in recipe.wanted_scores()}) == 5
    spelled = several([{"guidance_scale": 1.5, "guidance_channels": 1, "clip_denoised": True, "kept_steps": [6, 12]}])
    assert spelled.scores == ({"guidance_scale": 1.5, "guidance_channels": 1},)


def test_the_documentations_example_is_a_recipe() -> None:
    text = (Path(__file__).parents[2] / "docs" / "runs.md").read_text()
    (example,) = (block.split("```")[0] for block in text.split("```yaml")[1:] if "\nscores:" in block)
    content = parse_yaml(example)
    steps = {"steps": 400_000, "checkpoint_steps": [200_000]}
    recipe = several(content["scores"], evaluation={**content["evaluation"], "guidance_channels": 1}, train=steps)
    assert len(recipe.scores) == 8
    assert [score.step for score in recipe.wanted_scores()].count(400_000) == 9


def test_another_sampler_has_its_own_default_options() -> None:
    recipe = several([{"sampler": "ddpm"}], evaluation={"sampler": "ddim", "sampler_options": {"eta": 0.5}})
    assert [each.sampler_id for each in recipe.evaluations] == ["ddim eta=0.5", "ddpm"]


def test_sigterm_between_two_scores_loses_nothing(study: StudyFolder) -> None:
    """A stop is obeyed at the next batch; what was scored stays."""
    home = study("a")
    folder = start(several(), home)
    stop = StopRequest().on(signal.SIGTERM)

    def after_first(row: dict[str, Any]) -> None:
        if "fid" in row and not stop:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        run(folder, home, Execution(stop=stop, on_log=after_first))
    assert [len(rows(folder, name)) for name in ("evals.jsonl", "scores.jsonl")] == [1, 0]
    run(folder, home)
    assert [len(rows(folder, name)) for name in ("evals.jsonl", "scores.jsonl")] == [2, 4]
