"""Everything that reads what others wrote: a whole example of each kind of file, and how the suite reads it."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml
from PIL import Image

from analysis.errors import ResultsError
from bench.errors import InputError, RunError

REFUSED: tuple[type[Exception], ...] = (InputError, RunError, ResultsError)


@dataclass(frozen=True)
class Parser:
    """What is read: `write` makes an example in an empty folder, `read` reads all of it as the suite does.

    `disturbed`: a glob of the files that are changed. `refuses`: what a file may be refused with; anything else that
    is raised is a fault, and so is running out of memory or time.
    """

    name: str
    write: Callable[[Path], None]
    read: Callable[[Path], object]
    disturbed: str
    refuses: tuple[type[Exception], ...] = REFUSED


def _recipe(folder: Path) -> None:
    from recipes import TINY

    (folder / "recipe.yaml").write_text(yaml.safe_dump(TINY))


def _read_recipe(folder: Path) -> object:
    from bench.recipe import load_recipe

    return load_recipe(folder / "recipe.yaml").id


def _sweep(folder: Path) -> None:
    from sweep_files import four_runs

    four_runs(folder)


def _read_sweep(folder: Path) -> object:
    from sweeps.expand import load_sweep

    return load_sweep(folder / "tiny.yaml")


def _read_planned(folder: Path) -> object:
    return _command("sweep", "plan", folder / "tiny.yaml", "--cluster", "local", "--runs", folder / "runs")


def _profile(folder: Path) -> None:
    from sweeps.shipped import CLUSTERS

    for number, path in enumerate(sorted(CLUSTERS.glob("*.yaml"))):
        shutil.copy(path, folder / f"{number}.yaml")


def _read_profile(folder: Path) -> object:
    from sweeps.cluster import load_cluster

    return [load_cluster(str(path)) for path in sorted(folder.glob("*.yaml"))]


def _jsonl(folder: Path) -> None:
    from bench.files import jsonl

    for step in range(1, 9):
        jsonl.append(folder / "train.jsonl", {"step": step, "loss": 1 / step, "time": jsonl.now()})


def _read_jsonl(folder: Path) -> object:
    from bench.files import jsonl

    path = folder / "train.jsonl"
    jsonl.last_row(path)
    rows = jsonl.read(path)
    jsonl.cut_after(path, 4)
    return rows, jsonl.read(path)


def _runs(folder: Path) -> None:
    from run_folders import write_run

    for label in ("S/4", "S/2", "B/4"):
        write_run(folder / "runs", label, steps=(500, 1000))


def _read_runs(folder: Path) -> object:
    from run_folders import collect, read_histories

    from analysis.results.tables import load

    collect(folder / "runs", folder / "results")
    return read_histories(folder / "runs", load(folder / "results"))


def _watched(folder: Path) -> None:
    from fake_slurm import FakeStudy

    fake = FakeStudy(folder)
    fake.submitted(fake.array("training", "22", "S/4", "S/2"), fake.array("scoring", "23", "S/4", "S/2"))
    fake.started("S/4", "22_0")
    fake.logged("S/4", 4)
    fake.scored("S/4", 6, 98.765)
    fake.failed_once("S/2", "out of memory")
    fake.given_up("B/4", "diverged")
    fake.finished("B/2")


def _read_watched(folder: Path) -> object:
    from bench.files.run_files import read_ends
    from sweeps.expand import load_sweep, run_folders
    from sweeps.slurm import submissions

    sweep = load_sweep(folder / "tiny.yaml")
    folders = run_folders(sweep, folder / "runs")
    records = submissions.read_all(folder / "runs" / sweep.name)
    return records, [(ends.started_s, ends.last_start) for ends in (read_ends(r, folders[r.id]) for r in sweep.recipes)]


def _slurm(folder: Path) -> None:
    queue = ["22_0|RUNNING|training|n1|None", "22_1|PENDING|training||Priority", "23|COMPLETING|scoring|n[1-2]|None"]
    accounts = ["22_0|RUNNING|training|n1", "22_[1-4,9%2]|PENDING|training|None assigned", "23|CANCELLED by 0|s|n1"]
    (folder / "squeue.txt").write_text("\n".join(queue) + "\n")
    (folder / "sacct.txt").write_text("\n".join(accounts) + "\n")


def _read_slurm(folder: Path) -> object:
    from sweeps.slurm import client

    for command in ("squeue", "sacct"):
        script = folder / command
        script.write_text(f'#!/bin/sh\nexec /bin/cat "{folder}/{command}.txt"\n')
        script.chmod(0o755)
    with patch.dict(os.environ, PATH=f"{folder}:{os.environ['PATH']}"):
        return client.queued_jobs(), client.accounted_jobs(["22_0", "23"])


def _array(folder: Path) -> None:
    np.save(folder / "samples.npy", np.arange(4 * 3 * 8 * 8, dtype=np.uint8).reshape(4, 3, 8, 8))


def _read_array(folder: Path) -> object:
    from bench.data.images import open_images

    return open_images(folder / "samples.npy").content_hash()


def _adm(folder: Path) -> None:
    images = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
    np.savez(folder / "samples.npz", images, np.arange(4))


def _read_adm(folder: Path) -> object:
    from bench.data.images import open_images

    return open_images(folder / "samples.npz").content_hash()


def _reference(folder: Path) -> None:
    from bench.score.frechet import Gaussian
    from bench.score.reference import write_statistics

    gaussian = Gaussian(np.zeros(8), np.eye(8), 100)
    write_statistics(folder / "own.npz", "digits-cnn-0123", {"64": gaussian}, 100, "ab" * 32)


def _read_reference(folder: Path) -> object:
    from bench.score.reference import open_reference

    return open_reference(folder / "own.npz").id


def _images(folder: Path) -> None:
    for number in range(3):
        pixels = np.full((8, 8, 3), number, np.uint8)
        (folder / "images" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "images" / "ab"[number % 2] / f"{number}.png")


def _read_encoded_images(folder: Path) -> object:
    from bench.data.image_folder import list_images, read_image

    images = list_images(folder / "images")
    return [read_image(images.root / path, 8).shape for path in images.paths]


def _unreadable() -> tuple[type[Exception], ...]:
    from bench.data.image_file import UnreadableImage

    return (*REFUSED, UnreadableImage)


def _read_sampled_images(folder: Path) -> object:
    from bench.data.images import open_images

    return open_images(folder / "images").content_hash()


def _checkpoint(folder: Path) -> None:
    from bench.files.checkpoint import save_tensors

    save_tensors(folder / "ema.safetensors", {"a": torch.ones(4, 3), "b": torch.zeros(2)}, {"step": "5"})


def _read_checkpoint(folder: Path) -> object:
    from bench.files.checkpoint import load_tensors

    return load_tensors(folder / "ema.safetensors")


def _corrupt() -> tuple[type[Exception], ...]:
    from bench.files.checkpoint import CorruptCheckpoint

    return (CorruptCheckpoint,)


def _weights(folder: Path) -> None:
    from pretrained_models import small
    from safetensors.torch import save_file

    save_file(small().state_dict(), folder / "model.safetensors")


def _read_weights(folder: Path) -> object:
    from models.weights import load_pretrained

    return load_pretrained(folder / "model.safetensors", offline=True, num_heads=4).arch


def _pickle(folder: Path) -> None:
    from argparse import Namespace

    from pretrained_models import small

    content = {"ema": small().state_dict(), "args": Namespace(model="DiT-XL/2", num_classes=7)}
    torch.save(content, folder / "model.pt")


def _read_pickle(folder: Path) -> object:
    from models.weights import load_pretrained

    return load_pretrained(folder / "model.pt", offline=True, num_heads=4).arch


def _diffusers(folder: Path) -> None:
    from pretrained_models import theirs

    theirs().save_pretrained(folder / "transformer", max_shard_size="20KB")


def _read_diffusers(folder: Path) -> object:
    from models.weights import load_pretrained

    return load_pretrained(folder / "transformer", offline=True).arch


def _latents(folder: Path) -> None:
    from bench.data import shards
    from bench.data.latent_index import StoredVae

    settings = shards.Settings(
        vae=StoredVae(name="vae", sha256="ab" * 32),
        scale_factor=0.18215,
        latent_shape=(4, 2, 2),
        image_size=16,
        precision="fp32",
        images=6,
        images_sha256="cd" * 32,
        shard_size=4,
    )
    out = folder / "latents"
    shards.agree(out, settings)
    records = []
    for number, positions in enumerate((range(4), range(4, 6))):
        moments = np.random.default_rng(number).normal(size=(len(positions), 2, 8, 2, 2)).astype(np.float16)
        shards.save_shard(out, number, positions.start, moments, [p % 2 for p in positions], [])
        record = shards.read_record(out, number)
        assert record is not None
        records.append(record)
    shards.write_index(out, settings, ("a", "b"), records)


def _read_latents(folder: Path) -> object:
    from bench.data import shards
    from bench.data.latents import Latents

    out = folder / "latents"
    read = [shards.read_record(out, number) for number in (0, 1)]
    settings = shards.Settings.model_validate_json(_EXAMPLE_SETTINGS)
    shards.agree(out, settings)
    return read, Latents(out, torch.device("cpu")).batch(torch.arange(6), slice(0, 6), torch.Generator().manual_seed(0))


_EXAMPLE_SETTINGS = json.dumps(
    {
        "vae": {"name": "vae", "sha256": "ab" * 32},
        "scale_factor": 0.18215,
        "latent_shape": [4, 2, 2],
        "image_size": 16,
        "precision": "fp32",
        "images": 6,
        "images_sha256": "cd" * 32,
        "shard_size": 4,
    }
)


def _vae(folder: Path) -> None:
    from latent_runs import save_vae

    save_vae(folder / "vae", 4)


def _read_vae(folder: Path) -> object:
    from bench.data.vae import load_vae

    return load_vae(str(folder / "vae"), torch.device("cpu"), offline=True).id


def _tables(folder: Path) -> None:
    from run_folders import collect, write_run

    for label in ("S/4", "S/2", "B/4"):
        write_run(folder / "runs", label, steps=(500, 1000))
    collect(folder / "runs", folder / "results")
    shutil.rmtree(folder / "runs")


def _read_tables(folder: Path) -> object:
    from analysis.results import tables

    loaded = tables.load(folder / "results")
    return tables.summary(loaded), tables.correlations(loaded.evals)


def _read_fitted(folder: Path) -> object:
    _command("table", "summary", "--results", folder / "results")
    return _command("fit", folder / "results", "--form", "power", "--intervals", "profile")


def _plan(folder: Path) -> None:
    from report_sweep import plan_of, write_sweep
    from run_folders import collect

    write_sweep(folder / "runs")
    collect(folder / "runs", folder / "results")
    plan_of(folder / "runs").replace(folder / "plan.json")
    shutil.rmtree(folder / "runs")


def _read_plan(folder: Path) -> object:
    from analysis.results.run_history import read_plan
    from analysis.results.tables import load

    return read_plan(folder / "plan.json", load(folder / "results"))


def _samples(folder: Path) -> None:
    from bench.data.images import open_images
    from bench.provenance import write_made_from

    _array(folder)
    made = {"sampler": "ddpm", "sampling_steps": 250, "guidance_scale": 1.0, "weights": "ema", "step": 10}
    path = folder / "samples.npy"
    write_made_from(path, made, open_images(path).content_hash())


def _read_samples(folder: Path) -> object:
    """What is not of these samples is ignored, and said."""
    from bench.data.images import open_images
    from bench.provenance import read_made_from

    path = folder / "samples.npy"
    return read_made_from(path, open_images(path).content_hash(), _refuse)


def _refuse(line: str) -> None:
    raise InputError(line)


class ToldAndEnded(Exception):
    """A command that refused its input with one line."""


def _command(*arguments: object) -> object:
    """Run the command line in this process."""
    from command_line import ditbench

    ended = ditbench(*arguments)
    if ended.status in (1, 2):
        line = ended.err.removesuffix("\n")
        assert not any(unicodedata.category(c) == "Cc" for c in line), (
            f"an error that is not one line of text: {ended.err!r}"
        )
        raise ToldAndEnded(line)
    assert ended.status == 0
    return ended.out


PARSERS = (
    Parser("recipe", _recipe, _read_recipe, "*.yaml"),
    Parser("sweep", _sweep, _read_sweep, "*.yaml"),
    Parser("sweep, planned", _sweep, _read_planned, "*.yaml", (ToldAndEnded,)),
    Parser("cluster profile", _profile, _read_profile, "*.yaml"),
    Parser("metric file (.jsonl)", _jsonl, _read_jsonl, "*.jsonl"),
    Parser("run folders, collected", _runs, _read_runs, "runs/*/*.*"),
    Parser("run folders, watched", _watched, _read_watched, "runs/**/*.json*"),
    Parser("squeue and sacct", _slurm, _read_slurm, "*.txt", ()),
    Parser("samples (.npy)", _array, _read_array, "*.npy"),
    Parser("samples (.npz)", _adm, _read_adm, "*.npz"),
    Parser("made-from record", _samples, _read_samples, "*.json"),
    Parser("reference (.npz)", _reference, _read_reference, "*.npz"),
    Parser("images to encode", _images, _read_encoded_images, "images/*/*", _unreadable()),
    Parser("images to score", _images, _read_sampled_images, "images/*/*"),
    Parser("checkpoint (.safetensors)", _checkpoint, _read_checkpoint, "*.safetensors", _corrupt()),
    Parser("weights (.safetensors)", _weights, _read_weights, "*.safetensors", (ValueError,)),
    Parser("weights (.pt)", _pickle, _read_pickle, "*.pt", (ValueError,)),
    Parser("weights (diffusers)", _diffusers, _read_diffusers, "transformer/*", (ValueError,)),
    Parser("autoencoder", _vae, _read_vae, "vae/*", REFUSED),
    Parser("latents", _latents, _read_latents, "latents/*"),
    Parser("results", _tables, _read_tables, "results/*.*"),
    Parser("results, fitted", _tables, _read_fitted, "results/*.parquet", (ToldAndEnded,)),
    Parser("plan (.json)", _plan, _read_plan, "plan.json"),
)


@contextmanager
def example(parser: Parser, made: Path, folder: Path) -> Iterator[list[Path]]:
    """A fresh copy in `folder` of what `made` holds; the files that may be changed."""
    shutil.copytree(made, folder)
    try:
        yield sorted(path for path in folder.glob(parser.disturbed) if path.is_file())
    finally:
        shutil.rmtree(folder)


def written(parser: Parser, folder: Path) -> Any:
    """Write a parser's example into a new `folder`, and see that it is read."""
    folder.mkdir(parents=True)
    parser.write(folder)
    whole = folder.with_name(f"{folder.name}-whole")
    with example(parser, folder, whole):
        parser.read(whole)
