"""Metrics as a recipe chooses them: the suite's own by name, one's own from a file outside the repository."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from recipes import content, recipe
from run_folders import collect

from analysis.figures.metrics import draw
from analysis.figures.sources import measured
from analysis.report.study import Study
from analysis.results.tables import load, own_metrics
from bench.data.digits import DIGITS
from bench.data.images import ArrayImages
from bench.errors import InputError
from bench.files import jsonl
from bench.files.run_folder import write_config
from bench.recipe import Recipe, load_recipe
from bench.run import run
from bench.score.extractors import load_extractor
from bench.score.fidelity import Scorer

StudyFolder = Callable[[str], Path]
CPU = torch.device("cpu")
REFERENCE = DIGITS.reference("digits", DIGITS.options())

COVERAGE = '''
import torch


class Coverage:
    """Share of real images that have a sample within the distance of their fifth real neighbour (Naeem et al. 2020)."""

    columns = {"coverage": "Coverage"}
    lower_is_better = False
    needs = ("features", "reference images")

    def compute(self, compared):
        real = compared.reference_features
        radius = torch.cdist(real, real).kthvalue(6, dim=1).values
        return {"coverage": (torch.cdist(real, compared.features).min(dim=1).values <= radius).double().mean()}


class Brightness:
    """Difference of mean grey levels."""

    columns = {"brightness": "Difference in brightness"}
    lower_is_better = True
    needs = ("reference images",)

    def compute(self, compared):
        real = compared.reference.images
        ours, theirs = (images.batch(0, len(images)).double() for images in (compared.samples, real))
        return {"brightness": abs(ours.mean() - theirs.mean()), "brightness_std": ours.mean(dim=(1, 2, 3)).std()}
'''


def own(folder: Path, metrics: Any, module: str = COVERAGE, **changes: Any) -> Recipe:
    (folder / "my_metrics.py").write_text(module)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content({"evaluation.metrics": metrics, **changes})))
    return load_recipe(path)


def scores(samples: ArrayImages, features: Path, folder: Path, metrics: tuple[str, ...] | None) -> dict[str, float]:
    network = load_extractor("digits-cnn", features, offline=True)
    scorer = Scorer(REFERENCE, network, kid_subset_size=20, folder=folder, device=CPU, metrics=metrics)
    return scorer.score(samples, folder / "samples")


def first_digits(count: int) -> ArrayImages:
    assert REFERENCE.images is not None
    return ArrayImages(REFERENCE.images.pixels(0, count))


def test_a_recipe_that_names_none_has_the_same_metrics_as_ever(features: Path, tmp_path: Path) -> None:
    every = scores(first_digits(200), features, tmp_path, None)
    assert list(every) == [
        "fid", "fid_percent", "inception_score", "inception_score_std", "kid", "kid_std", "precision", "recall",
    ]  # fmt: skip
    assert every["precision"] == 1, "real images are among the real images"
    assert recipe().id == recipe({"evaluation.metrics": None}).id
    one_by_one: dict[str, float] = {}
    for name in ("kid", "precision_recall", "inception_score"):
        one_by_one |= scores(first_digits(200), features, tmp_path, (name,))
    assert one_by_one == every, "a metric does not depend on the others"


def test_the_named_ones_are_computed_and_the_frechet_distance_always(features: Path, tmp_path: Path) -> None:
    assert list(scores(first_digits(50), features, tmp_path, ())) == ["fid", "fid_percent"]
    assert list(scores(first_digits(50), features, tmp_path, ("kid", "fid"))) == [
        "fid", "fid_percent", "kid", "kid_std",
    ]  # fmt: skip
    assert recipe({"evaluation.metrics": ["kid"]}).id != recipe().id


@pytest.mark.slow
def test_a_metric_of_one_s_own_goes_into_the_row_and_its_direction_into_the_folder(
    study: StudyFolder, tmp_path: Path
) -> None:
    chosen = own(tmp_path, ["my_metrics:Coverage", "kid", "my_metrics:Brightness"])
    home = study("own")
    folder = home / chosen.folder_name
    write_config(chosen, folder)
    run(folder, home)
    for row in jsonl.read(folder / "evals.jsonl"):
        assert 0 <= row["coverage"] <= 1
        assert row["brightness"] >= 0
        assert {"fid", "kid", "brightness_std"} < set(row)
        assert not {"precision", "inception_score"} & set(row)
    described = json.loads((folder / "model.json").read_text())["metrics"]
    values = [(row["coverage"], row["brightness"]) for row in jsonl.read(folder / "evals.jsonl")]
    for tables in (collect(home, tmp_path / "results"), load(tmp_path / "results")):
        assert list(zip(tables.evals["coverage"], tables.evals["brightness"], strict=True)) == values
        assert own_metrics(tables.runs) == {"coverage": "Coverage ↑", "brightness": "Difference in brightness ↓"}
        data: Any = draw([measured(tables)], "two").data
        assert data["metric"].tolist() == ["fid", "kid", "coverage", "brightness"]
        assert data["mean"].tolist()[2:] == pytest.approx(values[-1])
        assert Study.of(tables).called("brightness") == "Difference in brightness"
    assert described == {
        "fid": {"title": "Fréchet distance", "lower_is_better": True},
        "coverage": {"title": "Coverage", "lower_is_better": False},
        "kid": {"title": "KID", "lower_is_better": True},
        "brightness": {"title": "Difference in brightness", "lower_is_better": True},
    }


def test_a_metric_of_one_s_own_is_of_these_samples_and_this_reference(features: Path, tmp_path: Path) -> None:
    own(tmp_path, ["my_metrics:Coverage"])  # from now on the module is found
    names = ("my_metrics:Coverage", "my_metrics:Brightness")
    assert REFERENCE.images is not None
    same = scores(first_digits(len(REFERENCE.images)), features, tmp_path, names)
    assert (same["coverage"], same["brightness"]) == (1, 0)
    black = ArrayImages(first_digits(60).pixels(0, 60) * 0)
    mean = REFERENCE.images.batch(0, len(REFERENCE.images)).double().mean().item()
    dark = scores(black, features, tmp_path / "black", names)
    assert dark["brightness"] == pytest.approx(mean)
    assert dark["coverage"] < 0.1


@pytest.mark.parametrize(
    ("metrics", "module", "message"),
    [
        (
            ["fit"],
            "",
            r"metrics: unknown metric 'fit'; accepted: fid, sfid, .*precision_recall, .*or the path of your own",
        ),
        (["my_metrics:Nothing"], COVERAGE, r"metrics: 'my_metrics:Nothing': my_metrics has no 'Nothing'"),
        (["my_metrics:torch"], COVERAGE, r"'my_metrics:torch' is no metric: it lacks columns"),
        ("kid", "", r"metrics: expected a list, got 'kid'"),
        (["fid_infinity"], "", r"metrics: fid_infinity needs 10000 samples, num_samples is 60"),
        (["my_metrics:Coverage"], COVERAGE.replace("reference images", "luck"), r"needs 'luck'; accepted: features, "),
        (["kid", "my_metrics:Coverage"], COVERAGE.replace('"coverage":', '"kid":'), r"has the column 'kid' of kid"),
        (["my_metrics:Coverage"], COVERAGE.replace('"coverage":', '"sampler":'), r"column 'sampler', which is taken"),
        (["my_metrics:Coverage"], COVERAGE.replace('{"coverage": "Coverage"}', "'coverage'"), r"a mapping from column"),
    ],
)
def test_what_is_no_metric_is_refused_when_the_recipe_is_read(
    tmp_path: Path, metrics: Any, module: str, message: str
) -> None:
    with pytest.raises(InputError, match=rf"recipe\.yaml: evaluation\..*{message}") as caught:
        own(tmp_path, metrics, module)
    assert "\n" not in str(caught.value)


def test_a_metric_whose_needs_are_not_met_is_refused_before_training(study: StudyFolder, tmp_path: Path) -> None:
    chosen = own(tmp_path, ["kid", "sfid"])
    home = study("own")
    folder = home / chosen.folder_name
    write_config(chosen, folder)
    with pytest.raises(
        InputError, match=r"^evaluation\.metrics: sfid needs spatial, which extractor digits-cnn-.* does"
    ):
        run(folder, home)
    assert not (folder / "train.jsonl").exists()


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ('{"cover": 1}', "needed: a value for coverage"),
        ("0.5", "needed: a value for coverage"),
        ('{"coverage": 1, "recall": 1}', "gave 'recall'; accepted: coverage"),
        ('{"coverage": "all"}', "accepted: numbers"),
        ('{"coverage": float("nan")}', "not finite"),
    ],
)
def test_what_a_metric_gives_must_be_what_it_says(features: Path, tmp_path: Path, returned: str, message: str) -> None:
    own(
        tmp_path,
        ["my_metrics:Wrong"],
        f"{COVERAGE}\n\nclass Wrong(Coverage):\n    def compute(self, c):\n        return {returned}\n",
    )
    with pytest.raises((InputError, ValueError), match=message):
        scores(first_digits(40), features, tmp_path, ("my_metrics:Wrong",))
