"""Cluster profiles: the shipped ones load, and a wrong one is refused with its file, the key and what is accepted."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from recipes import tiny

from bench.errors import InputError
from bench.flops import forward_gmacs
from bench.recipe import Recipe
from sweeps.cluster import ClusterProfile, Resources, load_cluster, minutes
from sweeps.expand import load_sweep
from sweeps.shipped import CLUSTERS, STUDIES

SLURM: dict[str, Any] = {
    "executor": "slurm",
    "time_limit": "01:00:00",
    "training": [{"gpus_per_node": 2}],
    "evaluation": [{"gpus_per_node": 1}],
}
SHIPPED = sorted(path.stem for path in CLUSTERS.glob("*.yaml"))


def loaded(folder: Path, content: Any) -> ClusterProfile:
    path = folder / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return load_cluster(str(path))


def refusal(folder: Path, content: Any) -> str:
    """The message with which a profile is refused, without the file's name."""
    with pytest.raises(InputError) as caught:
        loaded(folder, content)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'mine.yaml'}: ")
    assert "\n" not in message
    assert "Value error" not in message
    return message.removeprefix(f"{folder / 'mine.yaml'}: ")


def slurm(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**SLURM, **changes}.items() if value is not None}


@cache
def of_papers() -> list[Recipe]:
    """What ships for latents of ImageNet: trained as the papers do, in batches of 256."""
    recipes = [recipe for path in STUDIES.glob("*.yaml") for recipe in load_sweep(path).recipes]
    return [recipe for recipe in recipes if recipe.train.batch_size == 256]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profiles_load(name: str) -> None:
    profile = load_cluster(name)
    assert profile.where == str(CLUSTERS / f"{name}.yaml")
    if profile.executor == "slurm":
        for recipe in of_papers():
            assert 256 % profile.training_resources(recipe).ranks == 0
            profile.evaluation_resources(recipe)


def test_the_example_says_all_keys_and_its_commented_lines_load_too(tmp_path: Path) -> None:
    text = (CLUSTERS / "slurm-example.yaml").read_text()
    keys = "|".join(ClusterProfile.model_fields)
    whole, restored = re.subn(rf"^# ((?:{keys}):)", r"\1", text, flags=re.MULTILINE)
    assert restored == 5
    profile = loaded(tmp_path, whole)
    assert set(ClusterProfile.model_fields) == set(yaml.safe_load(whole))
    assert profile.exclude == "node[013-014]"
    assert profile.sbatch == {"reservation": "my-reservation", "exclusive": True}
    entries = [*yaml.safe_load(text)["training"], *yaml.safe_load(text)["evaluation"]]
    assert {key for entry in entries for key in entry} >= set(Resources.model_fields) - {"tasks_per_node", "partition"}
    assert all(line == line.rstrip() for line in text.splitlines())


def test_the_first_entry_that_fits_is_used(tmp_path: Path) -> None:
    entries = [
        {"models": ["S/*", "DiT-XL/2"], "gpus_per_node": 1},
        {"max_gmacs": 10.0, "gpus_per_node": 2},
        {"gpus_per_node": 4},
    ]
    profile = loaded(tmp_path, slurm(training=entries))
    scaling = {r.label: r for r in load_sweep("scaling").recipes}
    got = {label: profile.training_resources(scaling[label]).gpus_per_node for label in scaling}
    # S/* by label, XL/2 by name, and by the paper's Gflops (Table 4): 1.42, 5.56, 5.01 and 7.39 are at most 10.
    by_name, small = {"S/8", "S/4", "S/2", "XL/2"}, {"B/8", "B/4", "L/8", "XL/8"}
    assert got == {label: 1 if label in by_name else 2 if label in small else 4 for label in scaling}


@pytest.mark.parametrize(
    ("time_limit", "expected"),
    [("00:00:01", 1), ("01:30:00", 90), ("36:00:00", 2160), ("2-00", 2880), ("1-02:03:04", 1564)],
)
def test_time_limits(time_limit: str, expected: int) -> None:
    assert minutes(time_limit) == expected


@pytest.mark.parametrize("time_limit", ["", "30", "12:00", "1:00:60", "01:60:00", "1-", "a day", "-1:00:00"])
def test_other_forms_are_no_time_limits(tmp_path: Path, time_limit: str) -> None:
    message = refusal(tmp_path, slurm(time_limit=time_limit))
    accepted = "accepted: 'HH:MM:SS', 'D-HH:MM:SS', 'D-HH'"
    assert message == f"time_limit: {time_limit!r} is no time limit; {accepted}"


def test_an_unquoted_time_is_told_about_quotes(tmp_path: Path) -> None:
    quoted = yaml.safe_dump(slurm()).replace("01:00:00", "12:00:00")
    assert "time_limit: 12:00:00" in quoted
    message = "put the time in quotes, as in '12:00:00' (YAML reads it as a number without them)"
    assert refusal(tmp_path, quoted) == f"time_limit: {message}"
    in_entry = slurm(training=[{"gpus_per_node": 1, "time_limit": 43200}])
    assert refusal(tmp_path, in_entry) == f"training.0.time_limit: {message}"


def test_no_time_at_all(tmp_path: Path) -> None:
    assert refusal(tmp_path, slurm(time_limit="00:00:00")) == "time_limit: '00:00:00' leaves no time"
    everywhere = "time_limit: missing, here or in every entry of training and evaluation"
    assert refusal(tmp_path, slurm(time_limit=None)) == everywhere
    half = slurm(time_limit=None, training=[{"gpus_per_node": 1, "time_limit": "01:00:00"}])
    assert refusal(tmp_path, half) == everywhere


def test_unknown_keys(tmp_path: Path) -> None:
    accepted = ", ".join(ClusterProfile.model_fields)
    assert refusal(tmp_path, slurm(partitoin="gpu")) == f"partitoin: unknown key; accepted: {accepted}"
    assert refusal(tmp_path, slurm(training=[{"gpus": 8}])).startswith("training.0.gpus: unknown key; accepted: ")
    assert refusal(tmp_path, slurm(mail={"user": "me", "when": "END"})).startswith("mail.when: unknown key; accepted: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_parallel": "4"}, "max_parallel: Input should be a valid integer, got '4'"),
        ({"max_parallel": 0}, "max_parallel: Input should be greater than 0, got 0"),
        ({"requeue": 1}, "requeue: Input should be a valid boolean, got 1"),
        ({"precision": "fp16"}, "precision: Input should be 'fp32', 'tf32' or 'bf16', got 'fp16'"),
        ({"setup": "module load cuda"}, "setup: expected a list, got 'module load cuda'"),
        ({"training": [{"gpus_per_node": 1.5}]}, "training.0.gpus_per_node: Input should be a valid integer, got 1.5"),
        (
            {"mfu": {"training": 12, "sampling": 0.1, "source": "a guess"}},
            "mfu.training: Input should be less than or equal to 1, got 12",
        ),
        (
            {"training": [{"gpus_per_node": 4, "tasks_per_node": 2}]},
            "training.0.tasks_per_node: 2, but a task drives one of the 4 GPUs; leave it out",
        ),
        ({"precision": "tf32"}, "precision: tf32 is for device: cuda; accepted on cpu: fp32, bf16"),
        ({"device": "cuda", "evaluation": [{}]}, "evaluation: device: cuda, but an entry asks for no gpus_per_node"),
    ],
)
def test_wrong_values(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert refusal(tmp_path, slurm(**changes)) == message


# Values that nothing can be computed from


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"training": [{"mem_gb": 0}]}, "training.0.mem_gb"),
        ({"training": [{"mem_gb": -4.0}]}, "training.0.mem_gb"),
        ({"training": [{"mem_gb": float("nan")}]}, "training.0.mem_gb"),
        ({"training": [{"mem_gb": 1e300}]}, "training.0.mem_gb"),
        ({"evaluation": [{"gpus_per_node": -1}]}, "evaluation.0.gpus_per_node"),
        ({"training": [{"nodes": 0}]}, "training.0.nodes"),
        ({"evaluation": [{"nodes": 10**400}]}, "evaluation.0.nodes"),
        ({"evaluation": [{"gpus_per_node": 10**400}]}, "evaluation.0.gpus_per_node"),
        ({"training": [{"cpus_per_task": 0}]}, "training.0.cpus_per_task"),
        ({"training": [{"max_gmacs": float("inf")}]}, "training.0.max_gmacs"),
        ({"time_limit": "99999999-00"}, "time_limit"),
        ({"training": [{"time_limit": "999999999999:00:00"}]}, "training.0.time_limit"),
        ({"signal_before_end_s": -300}, "signal_before_end_s"),
        ({"gpu": {"name": "x", "peak_tflops": {"fp32": 1e-300}}}, "gpu.peak_tflops.fp32"),
        ({"gpu": {"name": "x", "peak_tflops": {"fp32": 1e300}}}, "gpu.peak_tflops.fp32"),
        ({"mfu": {"training": 1e-300, "sampling": 0.1, "source": "x"}}, "mfu.training"),
    ],
)
def test_absurd_values(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    assert refusal(tmp_path, slurm(**changes)).startswith(f"{key}: ")


@pytest.mark.parametrize("seconds", [3600, 3601, 65535])
def test_a_signal_before_the_job_begins(tmp_path: Path, seconds: int) -> None:
    message = refusal(tmp_path, slurm(signal_before_end_s=seconds))
    assert message == (
        f"signal_before_end_s: {seconds} leaves no time to work before the signal to jobs of training, whose "
        "time_limit is 01:00:00; accepted: less than 3600"
    )
    short = slurm(signal_before_end_s=300, evaluation=[{}, {"time_limit": "00:05:00"}])
    assert "jobs of evaluation, whose time_limit is 00:05:00; accepted: less than 300" in refusal(tmp_path, short)
    assert loaded(tmp_path, slurm(signal_before_end_s=3599)).signal_before_end_s == 3599


@pytest.mark.parametrize("key", ["partition", "account", "qos", "constraint", "exclude"])
@pytest.mark.parametrize("value", ["", "a\nscancel --me", "a\\b"])
def test_values_that_sbatch_would_not_read_as_they_are_written(tmp_path: Path, key: str, value: str) -> None:
    assert refusal(tmp_path, slurm(**{key: value})).startswith(f"{key}: {value!r}; accepted: ")


# The free section


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("array", "max_parallel"), ("dependency", "evaluate"), ("kill-on-invalid-dep", "evaluate"),
        ("signal", "signal_before_end_s"), ("output", "logs"), ("error", "logs"), ("open-mode", "logs"),
        ("ntasks", "tasks_per_node"), ("ntasks-per-node", "tasks_per_node"), ("nodes", "nodes"),
        ("gpus-per-node", "gpus_per_node"), ("gpus", "gpus_per_node"), ("cpus-per-task", "cpus_per_task"),
        ("mem", "mem_gb"), ("time", "time_limit"), ("partition", "partition"), ("account", "account"), ("qos", "qos"),
        ("constraint", "constraint"), ("exclude", "exclude"), ("requeue", "requeue"), ("no-requeue", "requeue"),
        ("mail-user", "mail"), ("mail-type", "mail"), ("job-name", "name"), ("chdir", "setup"), ("wrap", "setup"),
        ("parsable", "sbatch answers"), ("wait", "sbatch answers"), ("quiet", "sbatch answers"),
        ("test-only", "sbatch answers"), ("clusters", "cluster"), ("uid", "user"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["1", True, False])
def test_options_that_the_suite_gives_itself(tmp_path: Path, option: str, instead: str, value: str | bool) -> None:
    # As sbatch has it, as a profile's keys are written, and shortened as far as sbatch understands it.
    for written in {option, option.replace("-", "_"), option[:-1]}:
        message = refusal(tmp_path, slurm(sbatch={written: value}))
        assert message.startswith(f"sbatch.{written}: not accepted: ")
        assert instead in message


def test_other_options_do_what_they_say(tmp_path: Path) -> None:
    given = {
        "exclusive": False, "contiguous": True, "reservation": "mine", "nice": 100, "mem-per-cpu": "4G",
        "gres": "tmp:50G", "time-min": "00:10:00", "export": "NONE", "get_user_env": True, "wait-all-nodes": 1,
        "threads-per-core": 1, "comment": "it's #1", "nodelist": "n1", "switches": "1@10",
    }  # fmt: skip
    expected = {name.replace("_", "-"): value for name, value in given.items() if value is not False}
    assert loaded(tmp_path, slurm(sbatch=given)).sbatch_options == expected


@pytest.mark.parametrize(
    "section",
    [
        {"--reservation": "mine"}, {"p": "gpu"}, {"": "x"}, {"a b": "x"}, {"reservation": None}, {"nice": 1.5},
        {"nice": [1]}, {"comment": "one\ntwo"}, {"comment": "a\\b"}, {"export": False}, {"gres": "gpu:2"},
    ],
)  # fmt: skip
def test_options_that_are_none(tmp_path: Path, section: dict[str, Any]) -> None:
    message = refusal(tmp_path, slurm(sbatch=section))
    assert message.startswith(f"sbatch.{next(iter(section))}: ")
    assert "accepted" in message


def test_records_of_jobs_that_would_be_refused_now_are_read() -> None:
    """They are submitted already: to look at them, and to cancel them, must stay possible."""
    profile = ClusterProfile.model_validate(slurm(sbatch={"array": "0-3"}, signal_before_end_s=3600))
    assert ClusterProfile.model_validate_json(profile.model_dump_json()) == profile


@pytest.mark.parametrize("content", ["", "- executor: local\n", "local\n"])
def test_no_profile_at_all(tmp_path: Path, content: str) -> None:
    assert refusal(tmp_path, content).startswith("a profile is a mapping with the keys executor, device, precision, ")


def test_what_a_slurm_profile_needs(tmp_path: Path) -> None:
    training = "training: missing: at least one entry that says what a training job gets"
    assert refusal(tmp_path, slurm(training=None)) == training
    scoring = "evaluation: missing: evaluate: after needs what a scoring job gets"
    assert refusal(tmp_path, slurm(evaluation=None)) == scoring
    assert loaded(tmp_path, slurm(evaluation=None, evaluate="inline")).evaluate == "inline"
    assert refusal(tmp_path, {"device": "cpu"}) == "executor: missing"


@pytest.mark.parametrize("key", ["partition", "account", "qos", "constraint", "exclude"])
def test_a_local_profile_with_keys_of_slurm(tmp_path: Path, key: str) -> None:
    assert refusal(tmp_path, {"executor": "local", key: "x"}) == f"{key}: only for executor: slurm"
    time = {"executor": "local", "time_limit": "01:00:00"}
    assert refusal(tmp_path, time) == "time_limit: only for executor: slurm"
    assert refusal(tmp_path, {"executor": "local", "training": [{}]}) == "training: only for executor: slurm"


def test_no_entry_fits(tmp_path: Path) -> None:
    profile = loaded(tmp_path, slurm(training=[{"max_gmacs": 1e-9}], evaluation=[{"models": ["DiT-*"]}]))
    recipe = tiny(label="big")
    gmacs = f"{forward_gmacs(recipe.model):.4g}"
    for key, choose in (("training", profile.training_resources), ("evaluation", profile.evaluation_resources)):
        with pytest.raises(InputError) as caught:
            choose(recipe)
        assert str(caught.value) == (
            f"{tmp_path / 'mine.yaml'}: {key}: no entry fits big (DiT, {gmacs} GMACs); end the list with one without "
            "models and max_gmacs"
        )


def test_a_batch_that_the_ranks_do_not_divide(tmp_path: Path) -> None:
    recipe: Recipe = tiny(label="S/4")
    assert recipe.train.batch_size == 32
    profile = loaded(tmp_path, slurm(training=[{"nodes": 3, "tasks_per_node": 2}]))
    with pytest.raises(InputError) as caught:
        profile.training_resources(recipe)
    assert str(caught.value) == (
        f"{tmp_path / 'mine.yaml'}: training: S/4 gets 6 ranks (nodes x tasks per node), which do not divide its "
        "train.batch_size 32; accepted: nodes and GPUs that do"
    )
    assert loaded(tmp_path, slurm(training=[{"nodes": 2, "gpus_per_node": 4}])).training_resources(recipe).ranks == 8


def test_no_such_profile() -> None:
    with pytest.raises(InputError) as caught:
        load_cluster("nowhere")
    names = ", ".join(SHIPPED)
    assert str(caught.value) == (f"--cluster nowhere: no such profile; accepted: {names}, or the path of a YAML file")
