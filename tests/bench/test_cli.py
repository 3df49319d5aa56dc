"""The command line: help without waiting, one line and a status for what is wrong, numbers that parse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Ended, ditbench
from recipes import TINY

import sweeps
from bench.errors import InputError, RunError
from bench.files.run_folder import locked

DIGITS = str(Path(sweeps.__file__).parent / "studies" / "digits.yaml")
SLURM = {
    "executor": "slurm",
    "gpu": {"name": "a core", "peak_tflops": {"fp32": 0.05}},
    "mfu": {"training": 0.2, "sampling": 0.2, "source": "a guess"},
    "time_limit": "1-00",
    "evaluate": "inline",
    "training": [{}],
}
COMMANDS = [
    command.split()
    for command in ("", "flops", "run", "sweep", "sweep submit", "sweep plan", "sweep status", "sweep logs",
                    "sweep why", "sweep cancel", "collect", "figure", "demo", "prepare", "doctor", "encode", "sample",
                    "evaluate", "export", "export-samples", "fit", "compare", "advise", "table", "report", "perf",
                    "ladder", "judge")
]  # fmt: skip
# The typer of our lock file loads pydantic by itself.
HEAVY = (
    "torch", "torchvision", "numpy", "scipy", "sklearn", "pandas", "pyarrow", "matplotlib", "yaml",
    "diffusers", "timm", "fvcore", "submitit", "torch_fidelity", "safetensors",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(ended: Ended, status: int = 2) -> str:
    """The one line on stderr, without the program's name."""
    assert ended.status == status
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    assert line.startswith("ditbench: ")
    assert "Traceback" not in line
    return line.removeprefix("ditbench: ")


def fresh_python(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=100)


HELP = """
import json, sys
from ditbench import main
ends = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["ditbench", *arguments, "--help"]
    try:
        main()
    except SystemExit as ended:
        ends.append(ended.code or 0)
print("REPORT" + json.dumps([ends, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def test_help_of_every_command_is_there_without_loading_anything_heavy(tmp_path: Path) -> None:
    done = fresh_python(HELP, json.dumps(COMMANDS), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text, _, report = done.stdout.partition("REPORT")
    ends, loaded = json.loads(report)
    assert ends == [0] * len(COMMANDS)
    assert not set(HEAVY) & set(loaded)
    assert text.count("Usage:") == len(COMMANDS)
    for command in ("flops", "run", "sweep", "collect", "figure", "demo", "submit"):
        assert command in text


IMPORTS = """
import socket, sys
def refuse(*arguments, **options):
    raise AssertionError("a socket was opened")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
socket.socket.__init__ = refuse
import models, bench, sweeps, analysis
import ditbench, bench.data, bench.files.jsonl, bench.objectives, bench.ready, bench.recipe, bench.samplers
import bench.provenance, bench.files.run_folder
import sweeps.commands, sweeps.expand, sweeps.local, sweeps.planning.plan, sweeps.slurm.after, sweeps.slurm.client
import sweeps.slurm.job, sweeps.slurm.launch, sweeps.slurm.submissions, sweeps.watch.status
models.list_models()
print(sorted({"torch", "submitit", "pandas", "matplotlib"} & set(sys.modules)))
"""


def test_packages_import_neither_torch_nor_open_a_socket(tmp_path: Path) -> None:
    done = fresh_python(IMPORTS, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_console_script_ends_with_one_line_and_status_two(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("ditbench")
    if not script.exists():
        pytest.skip("the package's console script is not installed beside this Python")
    done = subprocess.run([script, "run", "none.yaml"], capture_output=True, text=True, cwd=tmp_path, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "ditbench: none.yaml: no such file\n")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--nope"], ["--nope", "--version"]),
        (["flop"], ["flop:", "did you mean flops?", "sweep"]),
        (["sweep", "submitt", "first"], ["submitt", "did you mean submit?", "cancel"]),
        (["flops", "DiT-S/8", "--convention", "papr"], ["--convention papr", "did you mean paper?", "true-flops"]),
        (["flops", "DiT-S/8", "--convention", "a\nb"], ["--convention a", "true-flops"]),
        (["flops", "--batch-size", "0", "--steps", "1"], ["--batch-size", "0", "1"]),
        (["flops", "--format", "xml"], ["--format xml", "table, csv, json"]),
        (["run"], ["recipe"]),
        (["run", "x.yaml", "--device", "tpu"], ["--device tpu", "cpu, cuda"]),
        (["run", "x.yaml", "--precision", "fp8"], ["--precision fp8", "fp32"]),
        (["sweep", "submit"], ["sweep"]),
        (["figure", "loss", "--width", "three"], ["--width three", "one, two"]),
        (["figure", "loss", "--widht", "one"], ["--widht", "did you mean --width?", "--caption"]),
        (["fit", "published", "more\nwords"], ["more", "DATA"]),
        (["table", "sumary"], ["sumary", "did you mean summary?", "transfer"]),
        (["table"], ["name", "summary", "transfer"]),
    ],
)
def test_mistyped_arguments_are_one_line_that_says_what_is_accepted(arguments: list[str], named: list[str]) -> None:
    line = refusal(ditbench(*arguments))
    assert [fragment for fragment in [*named, "--help"] if fragment not in line] == []


@pytest.mark.parametrize(
    "arguments",
    [["fit", "--y"], ["flops", "--all=3"], ["advise", "x"], ["advise", "x", "--budget", "1", "--width", "8"]],
)
def test_options_that_are_typed_wrong_are_one_line(arguments: list[str]) -> None:
    assert refusal(ditbench(*arguments)).startswith("--")


def test_no_command_shows_the_help() -> None:
    ended = ditbench()
    assert ended.status == 2
    assert "Usage:" in ended.err
    assert "demo" in ended.err
    assert ended.out == ""


def test_a_recipe_that_cannot_be_run_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    assert refusal(ditbench("run", "none.yaml")) == "none.yaml: no such file"
    bad = tmp_path / "bad.yaml"
    bad.write_text(yaml.safe_dump({**TINY, "data": {"name": "mnist"}}))
    message = refusal(ditbench("run", "bad.yaml"))
    assert message.startswith("bad.yaml: data")
    assert "unknown dataset 'mnist'; accepted: digits" in message
    bad.write_text("model: {name: DiT\n")
    assert refusal(ditbench("run", "bad.yaml")).startswith("bad.yaml: line 2: ")
    assert list(tmp_path.iterdir()) == [bad]


def test_a_key_with_a_line_break_still_makes_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({**TINY, "two\nlines": 1}))
    assert refusal(ditbench("run", "bad.yaml")).startswith("bad.yaml: two lines: unknown key; accepted: label, ")


def test_a_run_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    from bench.files.run_folder import write_config
    from bench.recipe import parse_recipe

    write_config(parse_recipe({**TINY, "seed": 3}, "x"), tmp_path / "mine")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    message = refusal(ditbench("run", "tiny.yaml", "--folder", "mine"))
    assert message == "mine: holds a run of another recipe (seed is 3 there, 0 here); give another folder"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["none.yaml"], ["none.yaml: no such file"]),
        ([DIGITS, "--cluster", "moon"], ["--cluster moon: no such profile", "accepted: local"]),
        ([DIGITS, "--cluster", "moon.yaml"], ["--cluster moon.yaml: no such profile"]),
        ([DIGITS, "--cluster", "pbs.yaml"], ["pbs.yaml: executor: ", "'local'", "'slurm'", "got 'pbs'"]),
        ([DIGITS, "--cluster", "bare.yaml"], ["bare.yaml: training: missing"]),
        ([DIGITS, "--cluster", "slurm.yaml"], ["sbatch: not found on the PATH", "a login node"]),
        ([DIGITS, "--cluster", "slurm.yaml", "--evaluate", "after"], ["slurm.yaml: evaluation: missing"]),
        ([DIGITS, "--cluster", "slurm.yaml", "--device", "cuda"], ["device: cuda, but an entry asks for no gpus"]),
        ([DIGITS, "--precision", "tf32"], ["precision: tf32", "accepted on cpu: fp32, bf16"]),
        ([DIGITS, "--shard"], ["local.yaml: shard: true, but this machine", "only for executor: slurm"]),
        ([DIGITS, "--cluster", "slurm.yaml", "--shard"], ["slurm.yaml: shard: true", "by one rank; accepted: false"]),
        (["unet.yaml", "--compile"], ["compile_blocks: true, but UNet-S is not of a family with blocks"]),
        ([DIGITS, "--tracker", "mlflow"], ["unknown tracker 'mlflow'; accepted: tensorboard, wandb"]),
        (["latents.yaml"], ["data/imagenet-256-latents", "ditbench encode"]),
        ([DIGITS, "--runs", "file"], ["file", "cannot be written", "give another folder"]),
        (["empty.yaml"], ["empty.yaml: a sweep is a mapping with the keys "]),
    ],
)
def test_a_sweep_that_cannot_start_is_refused_and_starts_nothing(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    named: list[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no sbatch there
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "empty.yaml").touch()
    evaluation = {"decoder": "owner/vae", "reference": "adm-imagenet-256"}
    data = {"name": "imagenet-256-latents", "vae": "owner/vae"}
    latents = {"data": data, "model": {"name": "DiT-S/8"}, "evaluation": evaluation}
    (tmp_path / "latents.yaml").write_text(yaml.safe_dump({"name": "latents", "base": latents}))
    unet = {"name": "UNet-S", "channels": 4, "multipliers": [1, 2], "attention": [4], "learn_sigma": True}
    (tmp_path / "unet.yaml").write_text(yaml.safe_dump({"name": "unet", "base": {**TINY, "model": unet}}))
    (tmp_path / "pbs.yaml").write_text("executor: pbs\n")
    (tmp_path / "bare.yaml").write_text("executor: slurm\n")
    (tmp_path / "slurm.yaml").write_text(yaml.safe_dump(SLURM))
    before = set(tmp_path.iterdir())
    message = refusal(ditbench("sweep", "submit", *arguments))
    for fragment in named:
        assert fragment in message
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["collect", "."], [".: no run folder there", "config.yaml"]),
        (["collect", "none"], ["none: no run folder there"]),
        (["figure", "all", "--source", "none"], ["none", "runs.parquet is missing", "ditbench collect"]),
        (["figure", "sample-grid", "--source", "none"], ["none", "runs.parquet is missing", "accepted: published"]),
        (["figure", "histogram"], ["histogram", "gflops-vs-fid, training-compute", "all"]),
        (["figure", "sample-grid", "--source", "published"], ["published: no samples to draw"]),
        (["table", "summary", "--results", "none"], ["none", "runs.parquet is missing"]),
        (["report", "none"], ["none", "runs.parquet is missing"]),
        (["fit", "none"], ["none", "runs.parquet is missing"]),
    ],
)
def test_results_that_are_not_there_are_named(tmp_path: Path, arguments: list[str], named: list[str]) -> None:
    message = refusal(ditbench(*arguments))
    for fragment in named:
        assert fragment in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("recipe.yaml: seed:\n  bad"), 2, "recipe.yaml: seed: bad"),
        (RunError("diverged at step 7"), 1, "diverged at step 7"),
        (KeyboardInterrupt(), 130, "interrupted; what was saved stays, and the same command continues"),
        (FileNotFoundError(2, "No such file", "x.csv"), 2, "x.csv: No such file"),
        (OSError("2 GB are to come"), 2, "2 GB are to come"),
    ],
)
def test_each_way_to_end_early_has_its_status(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, line: str
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr("bench.files.run_files.read_records", fail)
    assert refusal(ditbench("collect", "."), status) == line


def test_an_error_in_the_program_is_not_taken_for_one_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("bench.files.run_files.read_records", fail)
    with pytest.raises(ZeroDivisionError):
        ditbench("collect", ".")


def test_a_run_that_another_process_is_at_is_left_alone() -> None:
    Path("tiny.yaml").write_text(yaml.safe_dump(TINY))
    Path("held").mkdir()
    with locked(Path("held")):
        said = refusal(ditbench("run", "tiny.yaml", "--folder", "held"), status=1)
    assert "held" in said
    assert not Path("held", "train.jsonl").exists()
