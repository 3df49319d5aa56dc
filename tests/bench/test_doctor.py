"""`ditbench doctor`: right about what is there, silent errors of nothing, and no trace of it on the disk."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import typer
from fake_slurm import FakeSlurm
from typer.testing import CliRunner

from bench import doctor
from bench.commands import assets
from bench.data.latent_index import Labels, LatentIndex, Probe, Shard, StoredVae
from bench.errors import RunError
from models.files.assets import ASSETS, Asset, AssetFile

ALL_PACKAGES = doctor.PACKAGES


@dataclass(frozen=True)
class Report:
    """The printed table by its first column: state, what to do. And the error that ended the command, if any."""

    rows: dict[str, tuple[str, str]]
    error: BaseException | None

    def state(self, what: str) -> str:
        return self.rows[what][0]


@pytest.fixture
def slurm(tmp_path: Path) -> FakeSlurm:
    return FakeSlurm(tmp_path / "bin")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slurm: FakeSlurm) -> Path:
    """The current folder: empty, with no commands but the fake ones, no cache, no data, one package to look at."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", str(slurm.folder))
    monkeypatch.setenv("DITBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DITBENCH_DATA", raising=False)
    monkeypatch.setattr(doctor, "PACKAGES", ALL_PACKAGES[:1])
    return folder


@pytest.fixture
def examine(empty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Report]:
    """Run `ditbench doctor` in the empty folder; nothing may be different afterwards."""
    app = typer.Typer()
    app.command()(assets.doctor)

    def run(*arguments: str) -> Report:
        before = {path for path in tmp_path.rglob("*") if path.name != "calls"}
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            result = CliRunner().invoke(app, arguments)
        assert {path for path in tmp_path.rglob("*") if path.name != "calls"} == before
        assert (result.stderr, said) == ("", [])
        heading, *lines = result.stdout.splitlines()
        starts = [heading.index(title) for title in ("what", "state", "what to do")]
        assert starts[0] == 0
        cells = [(line[: starts[1]], line[starts[1] : starts[2]], line[starts[2] :]) for line in lines]
        assert all(line[start - 1 : start] in ("", " ") for line in lines for start in starts[1:])
        return Report({a.strip(): (b.strip(), c.strip()) for a, b, c in cells}, result.exception)

    return run


def test_an_empty_machine(examine: Callable[..., Report], tmp_path: Path, empty: Path) -> None:
    report = examine()
    assert report.error is None
    assert report.rows["python"] == (platform.python_version(), "")
    assert report.rows["torch"] == (version("torch"), "")
    assert report.rows["torchvision::nms"] == ("works", "")
    assert report.state("cpu").startswith(f"{len(os.sched_getaffinity(0))} cores, ")
    assert report.rows["slurm"] == ("no sbatch on the PATH", "on a cluster: a login node; else `--cluster local`")
    assert {"sinfo", "sacct"}.isdisjoint(report.rows)
    assert re.fullmatch(rf"{tmp_path}/cache: not made yet, \d+ GB free", report.state("cache"))
    assert report.state("data") == "data: no latents"
    assert report.state("file locks") == f"{empty}: work"
    for name in ASSETS:
        state, todo = report.rows[name]
        assert state.endswith(" missing")
        assert todo == f"ditbench prepare {name}"


def test_memory_is_the_machines(examine: Callable[..., Report]) -> None:
    (line,) = [line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:")]
    assert examine().state("cpu").endswith(f", {int(line.split()[1]) / 2**20:.0f} GiB memory")


def test_every_package_of_this_environment_works(
    examine: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ALL_PACKAGES)
    report = examine()
    assert report.error is None
    for name in ("torch", "torchvision", "timm", "diffusers", "torch-fidelity", "submitit", "fvcore"):
        assert report.rows[name] == (version(name), "")


def installed(folder: Path, name: str, code: str) -> None:
    """Have a distribution `name` 1.5 with a module of that name."""
    (folder / f"{name}-1.5.dist-info").mkdir(parents=True)
    (folder / f"{name}-1.5.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (folder / f"{name}.py").write_text(code)


def test_what_does_not_import_is_broken_and_what_is_not_installed_is_not(
    examine: Callable[..., Report], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed(tmp_path / "site", "loads", "import warnings\nwarnings.warn('old')\npart = 1")
    installed(tmp_path / "site", "raises", "raise OSError('libcudart.so.12:\\n no such file')")
    installed(tmp_path / "site", "lacks", "")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = ("loads", "raises", "lacks", "ditbench-nobody-has-this")
    monkeypatch.setattr(doctor, "PACKAGES", tuple((name, name, "part") for name in names))
    report = examine()
    assert report.rows["loads"] == ("1.5", "")
    assert report.rows["raises"] == ("1.5: OSError: libcudart.so.12: no such file", "make install")
    assert report.rows["lacks"][0].startswith("1.5: AttributeError: ")
    assert report.rows["ditbench-nobody-has-this"] == ("not installed", "make install")
    assert isinstance(report.error, RunError)  # `ditbench.main` ends with status 1
    assert str(report.error).startswith("raises, lacks: broken; ")
    assert len(str(report.error).splitlines()) == 1


def test_a_torchvision_of_another_torch_is_broken(
    examine: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nms(*arguments: object) -> object:
        raise RuntimeError("operator torchvision::nms does not exist")

    fake = ModuleType("torchvision")
    fake.ops = SimpleNamespace(nms=nms)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", fake)
    report = examine()
    state, todo = report.rows["torchvision::nms"]
    assert state == "RuntimeError: operator torchvision::nms does not exist"
    assert "together" in todo
    assert isinstance(report.error, RunError)
    assert "torchvision::nms: broken" in str(report.error)


def test_no_gpu_with_the_driver_s_reason(examine: Callable[..., Report], monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable() -> bool:
        warnings.warn("The NVIDIA driver on your system is too old\n(found version 9000).", stacklevel=1)
        return False

    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", unavailable)
    report = examine()
    assert report.error is None
    assert report.state("cuda") == "no device: The NVIDIA driver on your system is too old (found version 9000)."


def test_gpus_as_torch_describes_them(examine: Callable[..., Report], monkeypatch: pytest.MonkeyPatch) -> None:
    devices = [("NVIDIA A100-SXM4-80GB", 8, 80), ("Tesla V100-SXM2-32GB", 7, 32)]
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(devices))
    described = [SimpleNamespace(name=a, major=b, total_memory=c * 2**30) for a, b, c in devices]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: described[index])
    report = examine()
    assert report.state("cuda:0") == "NVIDIA A100-SXM4-80GB, 80 GiB, bf16"
    assert report.state("cuda:1") == "Tesla V100-SXM2-32GB, 32 GiB, no bf16"


def test_slurm_that_answers(examine: Callable[..., Report], slurm: FakeSlurm) -> None:
    slurm.says("sbatch", "slurm 22.05.8")
    slurm.says("sinfo", "gpu", "cpu", "gpu")
    slurm.says("sacct")
    report = examine()
    assert report.rows["slurm"] == ("slurm 22.05.8", "")
    assert report.rows["sinfo"] == ("partitions: cpu, gpu", "")
    assert report.rows["sacct"] == ("answers", "")
    assert [call.split()[0] for call in slurm.calls()] == ["sbatch", "sinfo", "sacct"]


def test_slurm_is_asked_without_the_shells_options(
    examine: Callable[..., Report], slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SINFO_PARTITION", "nosuch")
    monkeypatch.setenv("SLURM_CLUSTERS", "far")
    slurm.says("sbatch", "slurm 22.05.8")
    slurm.says("sinfo", "gpu", first='[ -z "$SINFO_PARTITION$SLURM_CLUSTERS" ] || exit 0')
    slurm.says("sacct")
    assert examine().rows["sinfo"] == ("partitions: gpu", "")


def test_slurm_that_is_down(examine: Callable[..., Report], slurm: FakeSlurm) -> None:
    slurm.says("sbatch", "slurm 22.05.8")
    slurm.says("sinfo", "gpu", status=1, error="a warning\nslurm_load_partitions: Unable to contact slurm controller\n")
    report = examine()
    assert report.error is None
    assert report.state("sinfo") == "slurm_load_partitions: Unable to contact slurm controller"
    assert report.rows["sacct"][0] == "not found on the PATH"
    assert "squeue" in report.rows["sacct"][1]
    slurm.says("sacct", status=3)
    assert examine().state("sacct") == "ended with status 3"


def test_a_command_that_hangs_is_left_with_all_that_it_started(
    examine: Callable[..., Report], slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "COMMAND_TIMEOUT", 0.5)
    slurm.says("sbatch", "slurm 22.05.8")
    slurm.says("sinfo", first="/bin/sleep 60; :")  # the shell waits for a child, which holds the pipe
    slurm.says("sacct")
    begun = time.monotonic()
    report = examine()
    assert time.monotonic() - begun < 30
    assert report.state("sinfo") == "no answer in 0.5 s"
    assert report.state("sacct") == "answers"


def test_the_cache_with_files_of_every_state(
    examine: Callable[..., Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def has(name: str, data: bytes | None, recorded: bytes | None) -> None:
        file = AssetFile(f"x/{name}", "http://127.0.0.1:1/x")
        monkeypatch.setitem(ASSETS, name, Asset("weights", file.path, (file,)))
        if data is not None:
            (tmp_path / "cache" / file.path).write_bytes(data)
        if recorded is not None:
            manifest[file.path] = {"sha256": hashlib.sha256(recorded).hexdigest(), "size": len(recorded)}

    manifest: dict[str, object] = {}
    (tmp_path / "cache" / "x").mkdir(parents=True)
    whole = bytes(2_000_000)
    has("whole", whole, whole)
    has("mine", whole, None)
    has("short", whole[:-1], whole)
    has("flipped", whole[:-1] + b"\1", whole)
    has("gone", None, whole)
    (tmp_path / "cache" / "manifest.json").write_text(json.dumps(manifest))
    report = examine()
    assert re.fullmatch(rf"{tmp_path}/cache: writable, \d+ GB free", report.state("cache"))
    assert report.rows["whole"] == ("weights: present, 2.0 MB", "")
    assert report.rows["mine"] == ("weights: not in the manifest, 2.0 MB", "")
    short = "weights: short 1,999,999 bytes, but 2,000,000 were fetched"
    assert report.rows["short"] == (short, "ditbench prepare short")
    assert report.state("flipped") == "weights: present, 2.0 MB"
    assert report.rows["gone"] == ("weights: gone missing", "ditbench prepare gone")
    verified = examine("--verify")
    assert verified.state("whole") == "weights: present, verified, 2.0 MB"
    assert verified.state("flipped").startswith("weights: flipped its SHA-256 begins with ")
    assert verified.rows["flipped"][1] == "ditbench prepare flipped"


def test_a_damaged_manifest_is_reported(examine: Callable[..., Report], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "manifest.json").write_text("{")
    report = examine()
    assert report.error is None
    assert report.state("inception-v3-compat").startswith(f"{tmp_path}/cache/manifest.json: not a manifest; ")


@pytest.mark.parametrize("folder", ["/proc/self", "/proc/no-cache"])
def test_a_cache_that_cannot_be_written(
    examine: Callable[..., Report], monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setenv("DITBENCH_CACHE", folder)
    state, todo = examine().rows["cache"]
    assert state.startswith(f"{folder}: cannot be written (")
    assert "DITBENCH_CACHE" in todo


def test_latents_whole_and_damaged(
    examine: Callable[..., Report], empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256, mean, std = "0" * 64, (0.0,) * 4, (1.0,) * 4
    index = LatentIndex(
        name="imagenet",
        count=1_281_167,
        num_classes=1000,
        classes=tuple(f"n{number:08}" for number in range(1000)),
        image_size=256,
        latent_shape=(4, 32, 32),
        scale_factor=0.18215,
        vae=StoredVae(name="stabilityai/sd-vae-ft-ema", sha256=sha256),
        precision="fp32",
        mean=mean,
        std=std,
        probe=Probe(indices=(0,), mean=mean, std=std),
        shards=(Shard(file="shard-00000.npy", count=1_281_167, sha256=sha256),),
        labels=Labels(file="labels.npy", sha256=sha256),
        corrupt=(),
        versions={},
    ).model_dump(mode="json")
    contents = {
        "whole": json.dumps(index),
        "cut": json.dumps(index)[:-3],
        "list": "[]",
        "no-vae": json.dumps({**index, "vae": None}),
        "words": json.dumps({**index, "count": "many"}),
        "short": json.dumps({**index, "count": 1_281_168}),
    }
    for root in (empty / "data", tmp_path / "elsewhere"):
        for name, content in contents.items():
            (root / name).mkdir(parents=True)
            (root / name / "index.json").write_text(content)
        (root / "unfinished").mkdir()
    for root in ("data", str(tmp_path / "elsewhere")):
        report = examine()
        assert report.error is None
        assert report.rows[f"{root}/whole"] == ("1,281,167 images of 256 px, stabilityai/sd-vae-ft-ema", "")
        for name in contents.keys() - {"whole"}:
            assert report.state(f"{root}/{name}/index.json").startswith("damaged: ")
        assert not any("unfinished" in what for what in report.rows)
        monkeypatch.setenv("DITBENCH_DATA", str(tmp_path / "elsewhere"))


def test_locks_that_keep_nobody_out_are_found(
    examine: Callable[..., Report], empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty / "runs").mkdir()
    assert examine().rows["file locks"] == ("runs: work", "")
    monkeypatch.setattr("fcntl.flock", lambda file, how: None)  # as on a file system that is mounted with nolock
    state, todo = examine().rows["file locks"]
    assert state == "runs: two files hold the same lock"
    assert "use a file system with locks" in todo

    def refuse(file: object, how: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert "Function not implemented" in examine().state("file locks")
