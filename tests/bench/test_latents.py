"""Latents: what training is given, exactly and whoever asks; and folders that are not what they say."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_vae import save_vae
from torch import Tensor

from bench.data import moments
from bench.data.latent_index import (
    LatentIndex,
    StoredVae,
    check,
    check_decoder,
    data_root,
    file_sha256,
    read_index,
)
from bench.data.latents import MAX_PENDING, Latents
from bench.data.moments import Moments, open_shard
from bench.data.shards import Settings, read_record, save_shard, write_index
from bench.data.vae import load_vae
from bench.errors import InputError

CPU = torch.device("cpu")
SCALE = 0.18215
ALL = slice(None)


def random_moments(count: int, seed: int = 0) -> NDArray[np.float16]:
    """(count, 2, 8, 2, 3): means about 1 and log variances about -1, 4 channels each."""
    random = np.random.default_rng(seed)
    moments = random.standard_normal((count, 2, 8, 2, 3))
    moments[:, :, :4] += 1
    moments[:, :, 4:] -= 1
    return moments.astype(np.float16)


def write_set(folder: Path, moments: NDArray[np.float16], shard_size: int = 5) -> LatentIndex:
    """Write a folder of latents, image i of class i mod 3."""
    what = Settings(
        vae=StoredVae(name="tiny-vae", sha256="ab" * 32),
        scale_factor=SCALE,
        latent_shape=(4, 2, 3),
        image_size=16,
        precision="fp32",
        images=len(moments),
        images_sha256="cd" * 32,
        shard_size=shard_size,
    )
    folder.mkdir()
    for shard in range(what.shards):
        own = what.positions(shard)
        save_shard(folder, shard, own.start, moments[own.start : own.stop], [i % 3 for i in own], [])
    records = [record for shard in range(what.shards) if (record := read_record(folder, shard))]
    return write_index(folder, what, ("a", "b", "c"), records)


@pytest.fixture(scope="module")
def stored() -> NDArray[np.float16]:
    return random_moments(23)


@pytest.fixture
def folder(tmp_path: Path, stored: NDArray[np.float16]) -> Path:
    write_set(tmp_path / "photos-16-latents", stored)
    return tmp_path / "photos-16-latents"


@pytest.fixture
def latents(folder: Path) -> Latents:
    return Latents(folder, CPU)


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_batch_is_drawn_from_the_stored_posteriors(latents: Latents, stored: NDArray[np.float16]) -> None:
    """Against the formula in float64: mean + exp(log variance / 2) x noise, of the image or its mirror, scaled."""
    indices = torch.tensor([22, 0, 7, 7, 13, 4, 5, 19])
    x, y = latents.batch(indices, ALL, seeded())
    random = seeded()
    noise = torch.randn((8, 4, 2, 3), generator=random).double().numpy()
    flipped = (torch.rand(8, generator=random) < 0.5).tolist()
    assert set(flipped) == {True, False}
    for row, index in enumerate(indices.tolist()):
        mean, log_variance = np.split(stored[index, int(flipped[row])].astype(np.float64), 2)
        expected = (mean + np.exp(log_variance / 2) * noise[row]) * SCALE
        assert np.allclose(x[row].numpy(), expected, rtol=1e-5, atol=1e-6)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert y.tolist() == [index % 3 for index in indices.tolist()]


def test_it_says_how_many_and_of_how_many_classes(latents: Latents) -> None:
    assert len(latents) == 23
    assert latents.num_classes == 3


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 12])
def test_any_number_of_ranks_gets_the_same_examples(latents: Latents, ranks: int) -> None:
    indices = torch.randperm(23, generator=seeded(1))[:12]
    whole, random = latents.batch(indices, ALL, seeded()), seeded()
    size = 12 // ranks
    shares = [latents.batch(indices, slice(r * size, (r + 1) * size), seeded()) for r in range(ranks)]
    for part, expected in zip(zip(*shares, strict=True), whole, strict=True):
        assert torch.equal(torch.cat(part), expected)
    latents.batch(indices, slice(0, size), random)
    other = seeded()
    latents.batch(indices, ALL, other)
    assert torch.equal(random.get_state(), other.get_state()), "a step's later draws depend on the number of ranks"


def test_draws_have_the_mean_and_deviation_of_the_posterior(latents: Latents, stored: NDArray[np.float16]) -> None:
    """Of a mixture of two normals: the image and its mirror, half of the draws each."""
    draws = 20_000
    x = latents.batch(torch.full((draws,), 11), ALL, seeded())[0].double().numpy() / SCALE
    means, log_variances = np.split(stored[11].astype(np.float64), 2, axis=1)
    mean = means.mean(axis=0)
    std = np.sqrt(np.exp(log_variances).mean(axis=0) + means.var(axis=0))
    assert np.abs((x.mean(axis=0) - mean) / std).max() < 5 / math.sqrt(draws)
    assert np.abs(x.std(axis=0) / std - 1).max() < 0.05


def test_log_variances_are_clamped(tmp_path: Path) -> None:
    """To -30 .. 20, as diffusers clamps them."""
    moments = np.zeros((2, 2, 8, 2, 3), np.float16)
    moments[0, :, 4:], moments[1, :, 4:] = 60, -60
    write_set(tmp_path / "set", moments)
    x, _ = Latents(tmp_path / "set", CPU).batch(torch.tensor([0, 1]), ALL, seeded())
    noise = torch.randn((2, 4, 2, 3), generator=seeded())
    assert torch.allclose(x[0], noise[0] * math.exp(10) * SCALE, rtol=1e-4)
    assert torch.allclose(x[1], noise[1] * math.exp(-15) * SCALE, rtol=1e-4)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), sizes=st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_rows_are_gathered_from_any_shards_in_any_order(data: st.DataObject, sizes: list[int]) -> None:
    everything = np.arange(sum(sizes) * 4).reshape(-1, 2, 2, 1, 1).astype(np.float16)
    shards = np.split(everything, np.cumsum(sizes)[:-1])
    indices = np.array(data.draw(st.lists(st.integers(0, sum(sizes) - 1), max_size=12)), np.int64)
    out = np.full((len(indices), 2, 2, 1, 1), np.nan, np.float16)
    rows = Moments(shards).gather(indices, out)
    assert np.array_equal(out[rows], everything[indices])


@pytest.mark.parametrize("wrong", [-1, 23])
def test_an_index_beyond_the_data_is_refused(latents: Latents, wrong: int) -> None:
    indices = torch.tensor([3, wrong])
    with pytest.raises(IndexError, match="of 23 latents"):
        latents.batch(indices, ALL, seeded())
    with pytest.raises(IndexError, match="of 23 latents"):
        latents.read_ahead(indices)


def batches(count: int) -> list[Tensor]:
    return [torch.randperm(23, generator=seeded(i))[:8] for i in range(count)]


@pytest.mark.parametrize("ahead", [1, 2, MAX_PENDING, MAX_PENDING + 3])
def test_reading_ahead_changes_nothing(latents: Latents, folder: Path, ahead: int) -> None:
    """Further ahead than is kept, too, and when the same batch is announced again."""
    share, steps = slice(2, 6), batches(12)
    direct = Latents(folder, CPU)
    for step, indices in enumerate(steps):
        for coming in steps[step : step + ahead]:
            latents.read_ahead(coming[share])
        for found, expected in zip(
            latents.batch(indices, share, seeded(step)), direct.batch(indices, share, seeded(step)), strict=True
        ):
            assert torch.equal(found, expected)


def test_what_was_read_ahead_and_not_asked_for_is_not_given(latents: Latents, folder: Path) -> None:
    first, second = batches(2)
    latents.read_ahead(first)
    assert torch.equal(latents.batch(second, ALL, seeded())[0], Latents(folder, CPU).batch(second, ALL, seeded())[0])


def test_what_was_read_ahead_is_used(latents: Latents) -> None:
    """The only moment at which the file is read is the announcement: later changes are not seen."""
    (indices,) = batches(1)
    before = latents.batch(indices, ALL, seeded())[0]
    latents.read_ahead(indices)
    latents._pending[indices.numpy().tobytes()].result()
    for path in sorted(Path(latents_folder(latents)).glob("shard-*.npy")):
        with path.open("r+b") as file:
            file.seek(-100, 2)
            file.write(b"\0" * 100)
    assert torch.equal(latents.batch(indices, ALL, seeded())[0], before)
    assert not torch.equal(latents.batch(indices, ALL, seeded())[0], before)


def latents_folder(latents: Latents) -> Path:
    shard: Any = latents._moments._shards[0]
    return Path(shard.base.filename).parent


def run_script(folder: Path, script: str) -> str:
    start = (
        "import os, sys, time, torch; from pathlib import Path; from bench.data.latents import Latents\n"
        f"latents = Latents(Path({str(folder)!r}), torch.device('cpu')); indices = torch.arange(8)\n"
        "def draw(): return latents.batch(indices, slice(None), torch.Generator().manual_seed(0))[0].sum().item()\n"
        "def never(*arguments): time.sleep(3600)\n"
    )
    command = [sys.executable, "-c", start + script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""
    return done.stdout


def test_a_forked_process_reads_what_its_parent_was_reading_and_neither_waits_for_that_to_end(folder: Path) -> None:
    script = (
        "expected, gather = draw(), latents._moments.gather\n"
        "latents._moments.gather = never; latents.read_ahead(indices); latents._moments.gather = gather\n"
        "child = os.fork()\n"
        "if not child: os._exit(0 if draw() == expected else 3)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert run_script(folder, script) == "0\n"


def test_the_index_tells_what_is_in_the_folder(folder: Path, stored: NDArray[np.float16]) -> None:
    index = read_index(folder)
    assert (index.name, index.count, index.num_classes, index.image_size) == ("photos-16-latents", 23, 3, 16)
    assert [(shard.file, shard.count) for shard in index.shards] == [
        (f"shard-{i:05d}.npy", count) for i, count in enumerate([5, 5, 5, 5, 3])
    ]
    assert index.moments_shape == (2, 8, 2, 3)
    assert np.array_equal(open_shard(folder / "shard-00004.npy", 3, (2, 8, 2, 3)), stored[20:])
    plain = stored[:, 0, :4].astype(np.float64)
    assert index.probe.indices == tuple(range(23))
    assert np.allclose(index.probe.mean, plain.mean(axis=(0, 2, 3)))
    assert np.allclose(index.probe.std, plain.std(axis=(0, 2, 3)))


def test_statistics_are_those_of_the_scaled_draws(folder: Path, latents: Latents) -> None:
    x = latents.batch(torch.arange(23).repeat(2000), ALL, seeded())[0]
    index = read_index(folder)
    assert np.allclose(x.mean(dim=(0, 2, 3)).numpy(), index.mean, atol=0.002)
    assert np.allclose(x.std(dim=(0, 2, 3)).numpy(), index.std, rtol=0.01)


def test_the_data_are_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DITBENCH_DATA", "/somewhere")
    assert data_root() == Path("/somewhere")
    monkeypatch.setenv("DITBENCH_DATA", "")
    assert data_root() == Path("data")


def test_a_recipe_that_says_what_the_index_says_is_accepted(folder: Path) -> None:
    check(read_index(folder), 23, 3, 16, "tiny-vae")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"length": 24}, "data.length: 24, but the latents photos-16-latents have 23 in their index.json"),
        ({"num_classes": 10}, "data.num_classes: 10, but .* have 3 "),
        ({"image_size": 256}, "data.image_size: 256, but .* have 16 "),
        ({"vae": "stabilityai/sd-vae-ft-mse"}, "data.vae: stabilityai/sd-vae-ft-mse, but .* have tiny-vae "),
    ],
)
def test_a_recipe_that_says_otherwise_is_refused(folder: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(read_index(folder), **{"length": 23, "num_classes": 3, "image_size": 16, "vae": "tiny-vae", **wrong})


def test_a_decoder_must_share_scale_and_channels_but_not_weights(tmp_path: Path) -> None:
    moments = random_moments(3)
    write_set(tmp_path / "set", moments)
    index = read_index(tmp_path / "set")
    three: dict[str, Any] = {
        "block_out_channels": (8, 8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
    }
    check_decoder(index, load_vae(str(save_vae(tmp_path / "same")), CPU, True))
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("scale", {"scaling_factor": 0.13025}, "scale factor of 0.13025, the latents set one of 0.18215"),
        ("channels", {"latent_channels": 8}, "latent channels of 8, .* one of 4"),
        ("sides", three, "downsampling of 4, .* one of 8"),
    ]
    for name, changes, message in wrong:
        with pytest.raises(InputError, match=rf"evaluation.decoder: {name}@[0-9a-f]{{8}} has a {message}"):
            check_decoder(index, load_vae(str(save_vae(tmp_path / name, **changes)), CPU, True))


def in_index(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        content = json.loads((folder / "index.json").read_text())
        change(content)
        (folder / "index.json").write_text(json.dumps(content))

    return rewrite


def in_shard(change: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: change(folder / "shard-00002.npy")


def cut_short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def save(array: Any, allow_pickle: bool = False) -> Callable[[Path], None]:
    return lambda path: np.save(path, array, allow_pickle=allow_pickle)


def zero_last_images(path: Path) -> None:
    moments = np.load(path)
    moments[3:] = 0
    np.save(path, moments)


def relabel(folder: Path) -> None:
    labels = np.load(folder / "labels.npy")
    labels[5] += 1
    np.save(folder / "labels.npy", labels)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "index.json").unlink(), "index.json: no such file; `ditbench encode` writes it once"),
        (lambda folder: (folder / "index.json").write_text("{"), "index.json: "),
        (in_index(lambda c: c.update(format=2)), "index.json: format: "),
        (in_index(lambda c: c.update(more=2)), "index.json: more: unknown key; accepted: format, name, "),
        (in_index(lambda c: c.pop("vae")), "index.json: vae: missing"),
        (in_index(lambda c: c.update(scale_factor="1")), "index.json: scale_factor: "),
        (in_index(lambda c: c.update(count=24)), "index.json: count: 24, but its shards hold 23"),
        (in_index(lambda c: c["probe"]["indices"].append(23)), "index.json: probe.indices: 23 is beyond count"),
        (in_index(lambda c: c["probe"]["std"].pop()), "index.json: probe.std: "),
        (in_shard(Path.unlink), "shard-00002.npy: missing; `ditbench encode` with the same arguments makes it again"),
        (in_shard(cut_short), "shard-00002.npy: not a whole .npy file"),
        (in_shard(append), "shard-00002.npy: 1089 bytes, expected 1088; "),
        (in_shard(lambda path: path.write_bytes(b"")), "shard-00002.npy: not a whole .npy file"),
        (in_shard(save(random_moments(4))), r"shard-00002.npy: float16 \(4, 2, 8, 2, 3\), expected float16 \(5, "),
        (in_shard(save(random_moments(5).astype(np.float32))), "shard-00002.npy: float32 .*, expected float16"),
        (in_shard(save(np.array([{}] * 5), allow_pickle=True)), "shard-00002.npy: "),
        (in_shard(zero_last_images), r"index.json: probe.mean: .*, but the shards give .*: they were altered"),
        (lambda folder: (folder / "labels.npy").unlink(), "labels.npy: missing"),
        (lambda folder: cut_short(folder / "labels.npy"), "labels.npy: not a whole .npy file"),
        (relabel, "labels.npy: its SHA-256 begins with [0-9a-f]{8}, in index.json [0-9a-f]{8}"),
    ],
    ids=range(20),
)
def test_a_damaged_folder_is_refused_naming_the_file(
    folder: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(folder)
    with pytest.raises(InputError, match=message) as caught:
        Latents(folder, CPU)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def flip(path: Path, byte: int) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["shard-00000.npy", "shard-00003.npy", "shard-00004.npy", "labels.npy"])
@pytest.mark.parametrize("byte", [-1, -96 * 2 - 1])
def test_a_flipped_byte_is_noticed_when_the_folder_is_opened(folder: Path, name: str, byte: int) -> None:
    """The last ones are of a mirror image, which no probe looks at."""
    flip(folder / name, byte if name != "labels.npy" else -1)
    with pytest.raises(
        InputError, match=rf"{name}: its SHA-256 begins with [0-9a-f]{{8}}, in index.json [0-9a-f]{{8}}"
    ):
        Latents(folder, CPU)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_mirror_image_that_is_not_finite_does_not_reach_training(folder: Path, value: float) -> None:
    """Not even with a checksum of its own."""
    moments = np.load(folder / "shard-00002.npy")
    moments[4, 1, 5, 1, 2] = value
    np.save(folder / "shard-00002.npy", moments)
    digest = file_sha256(folder / "shard-00002.npy")
    in_index(lambda content: content["shards"][2].update(sha256=digest))(folder)
    with pytest.raises(InputError, match=r"shard-00002.npy: has numbers that are not finite"):
        Latents(folder, CPU)


@given(st.lists(st.floats(width=16), max_size=5), st.integers(1, 3))
def test_finite_by_the_bits(values: list[float], block: int) -> None:
    array = np.array(values, np.float16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moments, "BLOCK", block)
        assert moments.all_finite(array) == np.isfinite(array).all()


def test_labels_of_another_kind_are_refused_even_with_their_checksum(folder: Path) -> None:
    np.save(folder / "labels.npy", np.zeros(23, np.int64))
    digest = file_sha256(folder / "labels.npy")
    in_index(lambda content: content["labels"].update(sha256=digest))(folder)
    with pytest.raises(InputError, match=r"labels.npy: int64 \(23,\), expected int32 \(23,\)"):
        Latents(folder, CPU)


def test_knowing_the_index_loads_neither_torch_nor_numpy() -> None:
    script = "import sys, bench.data.latent_index; print([name for name in ('torch', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
