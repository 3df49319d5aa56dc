import json
import re
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import LABELS, collect, fid_of, write_lines, write_run
from typer.testing import CliRunner

from analysis.commands.compare import compare
from analysis.compare.collected import collected_designs
from analysis.compare.designs import compare_designs
from analysis.errors import ResultsError
from analysis.laws.compute import COMPUTE
from analysis.laws.observations import Observations
from analysis.results.tables import load

DIGITS = Path(__file__).parents[2] / "results" / "digits"
GMACS = np.geomspace(0.3, 100, 12)


def rows_of(gmacs, score, models=None, seeds=(0,)):
    """`score`: (models, seeds)."""
    labels = models or [f"m{index:02}" for index in range(len(gmacs))]
    score = np.asarray(score, float).reshape(len(gmacs), len(seeds))
    models = tuple(label for label in labels for _ in seeds)
    names = tuple(f"{label} seed {seed} step 600" for label in labels for seed in seeds)
    variables = {"compute": np.repeat(np.asarray(gmacs, float), len(seeds))}
    of_rows = tuple(str(seed) for _ in labels for seed in seeds)
    return Observations("fid", score.ravel(), variables, models, names, of_rows, COMPUTE["forward"])


def noisy(random, seeds, seed_scatter=0.05, factor=1.0):
    """Twelve models off their line, a seed's shift common to all models, and a run's own scatter."""
    off = 0.1 * np.sin(np.arange(12.0))
    shifts, own = random.normal(size=len(seeds)), random.normal(size=(12, len(seeds)))
    logs = (off - 0.3 * np.log(GMACS))[:, None] + seed_scatter * shifts + 0.03 * own
    return rows_of(GMACS, 50 * factor * np.exp(logs), seeds=seeds)


@pytest.mark.parametrize("alpha", [0.05, 0.3, 1.5])
@pytest.mark.parametrize("paired", [True, False])
def test_noiseless_laws_give_their_multiplier(alpha, paired):
    """A design that is 2.5 times as good with compute has the score of 2.5 times the compute."""
    other = GMACS if paired else 1.7 * GMACS[2:]
    names = None if paired else [f"n{index:02}" for index in range(len(other))]
    plain = rows_of(GMACS, 80 * GMACS**-alpha)
    found = compare_designs({"plain": plain, "new": rows_of(other, 80 * (2.5 * other) ** -alpha, names)})
    assert (found.better, found.worse, found.paired, found.distinguishable) == ("new", "plain", paired, True)
    assert found.multiplier is not None
    values = (found.multiplier.estimate, found.multiplier.low, found.multiplier.high)
    assert values == pytest.approx((2.5, 2.5, 2.5), rel=1e-9)
    assert found.exponent.estimate == pytest.approx(alpha, rel=1e-9)
    assert found.ratio.estimate == pytest.approx(2.5**alpha, rel=1e-9)
    at = GMACS if paired else np.array([np.sqrt(1.7 * GMACS[2] * GMACS[-1])])
    gap = np.mean(80 * at**-alpha * (1 - 2.5**-alpha))
    assert found.difference.estimate == pytest.approx(gap, rel=1e-9)


def test_paired_models_of_different_compute_are_compared_at_equal_compute():
    """Blocks of one size differ in GMACs: a design that only costs more, on the same law, is no worse."""
    dearer = 1.4 * GMACS
    found = compare_designs({"a": rows_of(GMACS, 80 * GMACS**-0.3), "b": rows_of(dearer, 80 * dearer**-0.3)})
    assert found.paired
    assert found.multiplier is not None
    assert found.multiplier.estimate == pytest.approx(1, rel=1e-9)
    assert found.difference.estimate == pytest.approx(0, abs=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.floats(1e-6, 1e6), st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_units_do_not_matter(compute_unit, score_unit, seed):
    random = np.random.default_rng(seed)
    pair = {"a": noisy(random, (0, 1, 2)), "b": noisy(random, (0, 1, 2), factor=1.2)}
    scaled = {
        name: rows_of(GMACS * compute_unit, each.score * score_unit, seeds=(0, 1, 2)) for name, each in pair.items()
    }
    before, after = compare_designs(pair), compare_designs(scaled)
    assert after.multiplier is not None and before.multiplier is not None
    for name in ("estimate", "low", "high"):
        assert getattr(after.multiplier, name) == pytest.approx(getattr(before.multiplier, name), rel=1e-6)
        difference = score_unit * getattr(before.difference, name)
        assert getattr(after.difference, name) == pytest.approx(difference, rel=1e-6, abs=1e-9 * score_unit)


def test_order_does_not_matter_and_names_follow_the_data():
    random = np.random.default_rng(0)
    good, bad = noisy(random, (0, 1)), noisy(random, (0, 1), factor=1.5)
    found = compare_designs({"a": good, "b": bad})
    assert compare_designs({"b": bad, "a": good}) == found
    swapped = compare_designs({"a": bad, "b": good})
    assert (found.better, swapped.better) == ("a", "b")
    assert (swapped.multiplier, swapped.difference) == (found.multiplier, found.difference)
    assert found.headline()[0].startswith("a is better: b needs ")


@pytest.mark.parametrize("other_seeds", [(0, 1, 2), (3, 4, 5)])
def test_identical_designs_are_rarely_told_apart_and_different_ones_are(other_seeds):
    random = np.random.default_rng(7)
    told = bad = 0
    for draw in range(60):
        first = noisy(random, (0, 1, 2))
        told += compare_designs({"a": first, "b": noisy(random, other_seeds)}, seed=draw).distinguishable
        bad += compare_designs({"a": first, "b": noisy(random, other_seeds, 0.05, 1.8)}, seed=draw).distinguishable
    assert told <= 9  # at least 85% are not
    assert bad >= 50


def test_a_model_missing_in_one_design_is_left_out_and_named():
    score = 80 * GMACS**-0.3
    worse = rows_of(GMACS[1:], 2 * score[1:], [f"m{index:02}" for index in range(1, 12)])
    found = compare_designs({"a": rows_of(GMACS, score), "b": worse})
    assert (found.models, found.rows) == ((11, 11), (11, 11))
    assert found.left_out == ("a: m00, not in the other design",)


def test_a_score_that_does_not_fall_has_no_multiplier():
    found = compare_designs({"a": rows_of(GMACS, 80 * GMACS**0.2), "b": rows_of(GMACS, 90 * GMACS**0.2)})
    assert found.multiplier is None and not found.distinguishable
    assert found.headline()[0].startswith("Not distinguishable in compute")
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["multiplier"] is None


def test_what_cannot_be_compared_is_refused():
    rows = rows_of(GMACS, 80 * GMACS**-0.3)
    far = rows_of(1e4 * GMACS, 80 * GMACS**-0.3, [f"n{index}" for index in range(12)])
    with pytest.raises(ResultsError, match=r"1 design \(a\); needed: two"):
        compare_designs({"a": rows})
    with pytest.raises(ResultsError, match="b: 2 models; needed: at least 3"):
        compare_designs({"a": rows, "b": rows.at([0, 1])})
    with pytest.raises(ResultsError, match=r"no shared compute: a 0\.3 to 100 and b 3000 to 1e"):
        compare_designs({"a": rows, "b": far})
    with pytest.raises(ResultsError, match="compute is the same in every row"):
        compare_designs(dict.fromkeys("ab", rows_of([1.0] * 3, [1, 2, 3])))
    with pytest.raises(ResultsError, match="level 90"):
        compare_designs({"a": rows, "b": rows}, level=90)


def write_design(sweep, block, factor, seeds=(0, 1), **changed):
    """Runs of six models with `factor` times the FID; the scores are of step 2000."""
    for label in LABELS[:6]:
        for seed in seeds:
            folder = write_run(sweep, label, seed)
            config = yaml.safe_load((folder / "config.yaml").read_text())
            config["id"] += block
            config["recipe"]["model"]["block"] = block
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
            model = json.loads((folder / "model.json").read_text()) | {"block": block}
            (folder / "model.json").write_text(json.dumps(model))
            lines = [json.loads(line) for line in (folder / "evals.jsonl").read_text().splitlines()]
            rows = [line | {"fid": factor * line["fid"]} | changed for line in lines]
            write_lines(folder / "evals.jsonl", rows)
            folder.rename(folder.with_name(f"{folder.name}{block}"))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("designs")
    write_design(folder / "runs", "adaln-zero", 1.0)
    write_design(folder / "runs", "in-context", 1.5)
    collect(folder / "runs", folder / "results")
    return folder / "results"


def run(*arguments):
    app = typer.Typer()
    app.command()(compare)
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_command_prints_what_json_holds(results):
    found = json.loads(run(results, "--by", "block", "--format", "json"))
    assert (found["better"], found["worse"]) == ("adaln-zero", "in-context")
    assert (found["models"], found["rows"], found["seeds"]) == ([6, 6], [12, 12], [2, 2])
    assert found["ratio"]["estimate"] == pytest.approx(1.5, rel=1e-9)
    assert found["multiplier"]["estimate"] == pytest.approx(1.5 ** (1 / found["exponent"]["estimate"]), rel=1e-9)
    means = [np.exp(np.mean([np.log(fid_of(label, 2000, seed)) for seed in (0, 1)])) for label in LABELS[:6]]
    assert found["difference"]["estimate"] == pytest.approx(0.5 * np.mean(means), rel=1e-9)
    assert found == compare_designs(collected_designs({"r": load(results)}, "block")).to_dict()
    printed = run(results, "--verbose").splitlines()
    assert printed[: len(found["headline"])] == found["headline"] and len(found["headline"]) <= 3
    assert f"in-context needs {found['multiplier']['estimate']:.3g} " in printed[0]


def test_command_refuses_in_one_line(results, tmp_path):
    write_design(tmp_path / "runs", "in-context", 1.5, num_samples=7)
    collect(tmp_path / "runs", tmp_path / "other")
    write_design(tmp_path / "nan", "adaln", 1.5, fid=float("nan"), num_samples=7)
    collect(tmp_path / "nan", tmp_path / "nans")
    cases = {
        "--by block: 1 design .adaln-zero.; needed: two; accepted: two models .--between S/4,S/2": (DIGITS,),
        r"--by patch: 3 designs .1, 2, 4.; choose two: --between": (DIGITS, "--by", "patch"),
        "no design 8; accepted: two of 1, 2, 4": (DIGITS, "--by", "patch", "--between", "1,8"),
        "no column colour; accepted: source, run": (results, "--by", "colour"),
        "num_samples: 7 in .*other, 1000 in .*results.*`ditbench evaluate": (
            results,
            tmp_path / "other",
            "--by",
            "source",
        ),
        "adaln: fid: computed for no row": (tmp_path / "other", tmp_path / "nans"),
        "differ in block .adaln-zero and in-context in 2, ": (results, "--by", "patch", "--between", "2,4"),
        "differ in block .in-context in runs, adaln in nan.": (tmp_path / "other", tmp_path / "nans", "--by", "sweep"),
        "step 77: no score": (results, "--step", 77),
        "the same folder twice": (results, results),
        "--between B/2: accepted: two designs": (DIGITS, "--between", "B/2"),
        "no design B/3; accepted: two of B/1, ": (DIGITS, "--between", "B/2,B/3"),
        "no score can stand next to a published one": ("published", results),
        "published: kid is not published": ("published", "--metric", "kid"),
        "DATA: missing; accepted: published": (),
    }
    for message, arguments in cases.items():
        with pytest.raises(ResultsError, match=message) as caught:
            run(*arguments)
        assert "\n" not in str(caught.value)


def test_the_digits_study_on_other_seeds_is_the_same_design():
    """Seeds 0 to 2 and 3 to 5 of one recipe: seeds shift all models together, which models alone would not tell."""
    output = run(DIGITS, DIGITS.with_name("digits-held-out"), "--by", "source", "--format", "json")
    found = json.loads(output)
    assert found["models"] == [12, 12] and not found["distinguishable"]
    assert found["multiplier"]["low"] < 1 < found["multiplier"]["high"]


def test_two_models_of_one_study_are_compared_over_their_seeds():
    found = json.loads(run(DIGITS, "--between", "B/2, L/4", "--format", "json"))
    rows = load(DIGITS).evals.query("step == 600")
    scores = {label: rows.loc[rows["label"] == label].sort_values("seed") for label in ("B/2", "L/4")}
    assert found["means"] == pytest.approx([scores[name]["fid"].mean() for name in (found["better"], found["worse"])])
    assert found["gmacs"] == [scores[name]["gmacs"].iloc[0] for name in (found["better"], found["worse"])]
    assert (found["seeds"], found["paired"]) == ([3, 3], True)
    gaps = scores[found["worse"]]["fid"].to_numpy() - scores[found["better"]]["fid"].to_numpy()
    half = 2.9199856 * np.std(gaps, ddof=1) / np.sqrt(3)  # Student's t of 2 degrees of freedom, 95 %
    assert found["interval"]["low"] == pytest.approx(np.mean(gaps) - half, rel=1e-6)
    assert found["distinguishable"] == (found["interval"]["low"] > 0)
    same = run(DIGITS, "--by", "label", "--between", "B/2,L/4", "--format", "json")
    assert json.loads(same) == found


def test_of_two_studies_of_one_model_each_the_models_are_compared(tmp_path):
    for label, seeds in (("S/4", (0, 1)), ("B/2", (0, 1, 2))):
        for seed in seeds:
            write_run(tmp_path / "runs" / label[0], label, seed)
        collect(tmp_path / "runs" / label[0], tmp_path / label[0])
    found = json.loads(run(tmp_path / "S", tmp_path / "B", "--format", "json"))
    assert (found["better"], found["seeds"], found["paired"]) == (str(tmp_path / "B"), [3, 2], False)
    assert found["means"] == pytest.approx(
        [np.mean([fid_of("B/2", 2000, seed) for seed in range(3)]), np.mean([fid_of("S/4", 2000, n) for n in (0, 1)])]
    )


def test_the_papers_designs_have_one_seed_each():
    table = json.loads(run("published", "--format", "json"))
    assert {row["design"]: row["mean"] for row in table["designs"]} == {
        "adaln-zero": 19.47, "adaln": 25.21, "cross-attention": 26.14, "in-context": 35.24
    }  # fmt: skip
    two = json.loads(run("published", "--between", "in-context,adaln-zero", "--format", "json"))
    assert (two["better"], two["interval"], two["distinguishable"]) == ("adaln-zero", None, False)
    assert two["difference"] == pytest.approx(35.24 - 19.47)
    models = json.loads(run("--source", "published", "--between", "B/2,L/4", "--format", "json"))
    assert (models["better"], models["gmacs"]) == ("B/2", [23.01, 19.7])


OTHER_NETWORK = {"extractor": "digits-cnn-22222222"}


def test_scores_of_another_machines_network_are_comparable_once_they_are_scored_again(tmp_path):
    """What the refusal asks for: the same samples by the other's network, in other-evals.jsonl."""
    write_design(tmp_path / "runs" / "a", "adaln-zero", 1.0, extractor="digits-cnn-11111111")
    write_design(tmp_path / "runs" / "b", "in-context", 1.5, **OTHER_NETWORK)
    for name in "ab":
        collect(tmp_path / "runs" / name, tmp_path / name)
    with pytest.raises(ResultsError) as refusal:
        run(tmp_path / "a", tmp_path / "b")
    said = str(refusal.value)
    assert "extractor: digits-cnn-11111111 in adaln-zero, digits-cnn-22222222 in in-context" in said
    assert "num_samples" not in said
    for folder in (tmp_path / "runs" / "b").glob("*/"):
        lines = [json.loads(line) for line in (folder / "evals.jsonl").read_text().splitlines()]
        again = [line | {"extractor": "digits-cnn-11111111", "fid": 2 * line["fid"]} for line in lines]
        write_lines(folder / "other-evals.jsonl", again)
    collect(tmp_path / "runs" / "b", tmp_path / "b")
    found = json.loads(run(tmp_path / "a", tmp_path / "b", "--format", "json"))
    assert (found["better"], found["ratio"]["estimate"]) == ("adaln-zero", pytest.approx(3))


@pytest.mark.parametrize(
    ("there", "needed"),
    [
        ({"extractor": "dinov2-vitl14-00000000"}, {"evaluate": ["--extractor digits-mlp"]}),
        ({"num_samples": 2000}, {"evaluate": ["--num-samples 1000"]}),
        ({"kid_subset_size": 50}, {"evaluate": ["--kid-subset-size 100"]}),
        ({"reference": "adm-imagenet-256"}, {"evaluate": ["--reference REFERENCE"]}),
        ({"num_samples": 500}, {"evaluate": ["--num-samples 500"]}),
        (
            {"sampler": "ddim eta=0.5", "sampling_steps": 50, "guidance_scale": 4.0, "clip_denoised": False},
            {"sample": ["--sampler ddpm", "--sampling-steps 250", "--guidance-scale 1", "--clip-denoised"]},
        ),
        ({"labels": "uniform"}, {"sample": ["--labels balanced"], "evaluate": []}),
    ],
)
def test_each_difference_of_a_key_has_its_remedy_in_options_that_exist(tmp_path, there, needed):
    write_design(tmp_path / "a", "adaln-zero", 1.0, seeds=(0,))
    write_design(tmp_path / "b", "in-context", 1.5, seeds=(0,), **there)
    tables = {name: collect(tmp_path / name, tmp_path / f"{name}-results") for name in "ab"}
    with pytest.raises(ResultsError) as refusal:
        collected_designs(tables)
    said = str(refusal.value)
    assert "\n" not in said
    for key in there:
        assert f"{key}: " in said
    commands = {text.split()[1]: text for text in re.findall(r"`(ditbench [^`]*)`", said)}
    assert set(commands) == {"evaluate", "collect", *needed}
    for command, options in needed.items():
        assert all(f"{option} " in f"{commands[command]} " for option in options)
    from ditbench import app

    for command, text in commands.items():
        printed = CliRunner().invoke(app, [command, "--help"]).output
        assert [word for word in text.split() if word.startswith("--") and word not in printed] == []
