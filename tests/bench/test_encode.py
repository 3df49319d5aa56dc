"""Encoding: ADM's crop, diffusers' posteriors, the same files whoever makes them and whatever interrupts."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from photos import PATHS, files, make_images, noise
from PIL import Image
from safetensors.torch import load_file, save_file
from test_vae import diffusers_vae, save_vae

from bench.data.encode import Encoded, Part, encode
from bench.data.image_folder import list_images, read_image
from bench.data.latent_index import read_index
from bench.data.latents import Latents
from bench.data.vae import Autoencoder, load_vae
from bench.errors import InputError, RunError

CPU = torch.device("cpu")
SIZE = 32
SHARD_SIZE = 4


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images") / "photos")


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vae(tmp_path_factory.mktemp("vae") / "tiny-vae")


@pytest.fixture(scope="module")
def vae(vae_folder: Path) -> Autoencoder:
    return load_vae(str(vae_folder), CPU, offline=True)


def run(photos: Path, out: Path, vae: Autoencoder, **changes: Any) -> Encoded:
    arguments = {"image_size": SIZE, "precision": "fp32", "shard_size": SHARD_SIZE, "batch_size": 3, "workers": 0}
    return encode(list_images(photos), out, vae, **{**arguments, **changes})


@pytest.fixture(scope="module")
def whole(photos: Path, vae: Autoencoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one undisturbed process makes."""
    out = tmp_path_factory.mktemp("data") / "photos-32-latents"
    assert run(photos, out, vae).made == 4
    return out


def moments(folder: Path) -> NDArray[np.float16]:
    return np.concatenate([np.load(path) for path in sorted(folder.glob("shard-*.npy"))])


# --- what is stored


def test_posteriors_are_those_of_diffusers_for_the_image_and_its_mirror(
    whole: Path, photos: Path, vae_folder: Path
) -> None:
    reference, stored = diffusers_vae(vae_folder), moments(whole)
    assert (stored.shape, stored.dtype) == ((14, 2, 8, 4, 4), np.float16)
    for name, found in zip(PATHS, stored, strict=True):
        pixels = read_image(photos / name, SIZE).astype(np.float32) / 127.5 - 1
        both = torch.from_numpy(np.stack([pixels, pixels[:, :, ::-1]]))
        with torch.no_grad():
            posterior = reference.encode(both).latent_dist
        assert np.allclose(found, posterior.parameters.numpy(), rtol=2e-3, atol=1e-4), name
        assert np.allclose(np.exp(found[:, 4:].astype(float)), posterior.var.numpy(), rtol=1e-2)
    assert not np.allclose(stored[:, 1], stored[:, 0, :, :, ::-1], rtol=1e-2), "an encoder is not symmetric"


def test_the_index_says_what_was_made(whole: Path, vae: Autoencoder) -> None:
    index = read_index(whole)
    assert (index.name, index.count, index.num_classes) == ("photos-32-latents", 14, 3)
    assert (index.classes, index.image_size, index.latent_shape) == (("cat", "dog", "eel"), 32, (4, 4, 4))
    assert (index.scale_factor, index.vae.name, index.vae.sha256) == (0.18215, "tiny-vae", vae.sha256)
    assert (index.precision, index.corrupt) == ("fp32", ())
    assert [shard.count for shard in index.shards] == [4, 4, 4, 2]
    for stored in (*index.shards, index.labels):
        assert hashlib.sha256((whole / stored.file).read_bytes()).hexdigest() == stored.sha256
    assert index.versions["torch"] == torch.__version__
    labels = np.load(whole / "labels.npy")
    assert (labels.dtype, labels.tolist()) == (np.int32, [0] * 5 + [1] * 4 + [2] * 5)


def test_sets_of_before_the_rule_of_folders_are_found_whole(whole: Path) -> None:
    """The hash of the list of images, as earlier versions wrote it for the same images."""
    settings = json.loads((whole / "settings.json").read_text())
    listed = json.dumps([["cat", "dog", "eel"], PATHS])
    assert settings["images_sha256"] == hashlib.sha256(listed.encode()).hexdigest()


def test_statistics_and_probe_are_those_of_the_files(whole: Path) -> None:
    """By the law of total variance, over images, flips and pixels."""
    index, stored = read_index(whole), moments(whole).astype(np.float64)
    means, variances = stored[:, :, :4], np.exp(stored[:, :, 4:])
    over = (0, 1, 3, 4)
    assert np.allclose(index.mean, 0.18215 * means.mean(over))
    assert np.allclose(index.std, 0.18215 * np.sqrt(means.var(over) + variances.mean(over)))
    assert np.allclose(index.probe.mean, means[:, 0].mean((0, 2, 3)))
    assert np.allclose(index.probe.std, means[:, 0].std((0, 2, 3)))


def test_training_reads_what_was_made(whole: Path, vae: Autoencoder, photos: Path) -> None:
    """Back to images at the autoencoder's own error: an untrained one's posterior has a wide spread, so its means."""
    x, y = Latents(whole, CPU).batch(torch.arange(14).repeat(300), slice(None), torch.Generator().manual_seed(0))
    assert y[:14].tolist() == [0] * 5 + [1] * 4 + [2] * 5
    means = moments(whole)[:, :, :4].astype(np.float64).mean(1) * 0.18215
    assert np.abs(x.unflatten(0, (300, 14)).double().mean(0).numpy() - means).max() < 0.06
    pixels = torch.from_numpy(np.stack([read_image(photos / name, SIZE) for name in PATHS]))
    plain = torch.from_numpy(moments(whole)[:, 0, :4]).float() * 0.18215
    own = vae.decode(vae.moments(pixels)[:, :4] * 0.18215)
    assert (vae.decode(plain).int() - own.int()).abs().max() <= 1


def test_more_images_than_the_probe_holds_are_probed_evenly(photos: Path, tmp_path: Path, vae: Autoencoder) -> None:
    (tmp_path / "many" / "a").mkdir(parents=True)
    Image.fromarray(noise(8, 8)).save(tmp_path / "first.png")
    for number in range(300):
        os.link(tmp_path / "first.png", tmp_path / "many" / "a" / f"{number:03d}.png")
    index = run(tmp_path / "many", tmp_path / "out", vae, image_size=8, shard_size=250, batch_size=64).index
    assert index is not None
    indices = np.array(index.probe.indices)
    assert (len(indices), indices[0], indices[-1]) == (256, 0, 299)
    assert set(np.diff(indices)) == {1, 2}


# --- who makes it, and how often


def test_parts_make_the_same_files_as_one_process(photos: Path, whole: Path, vae: Autoencoder, tmp_path: Path) -> None:
    out = tmp_path / whole.name
    found = [run(photos, out, vae, part=Part(index, 3)) for index in (2, 0, 1)]
    assert [(encoded.made, encoded.missing, encoded.index is None) for encoded in found] == [
        (1, 3, True), (2, 1, True), (1, 0, False),
    ]  # fmt: skip
    assert files(out) == files(whole)


def test_more_parts_than_shards_are_no_error(photos: Path, vae: Autoencoder, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / whole.name
    for index in reversed(range(6)):
        run(photos, out, vae, part=Part(index, 6))
    assert files(out) == files(whole)


def test_processes_that_decode_images_change_nothing(
    photos: Path, whole: Path, vae: Autoencoder, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    run(photos, tmp_path / whole.name, vae, workers=2, on_images=lambda done, total: told.append((done, total)))
    assert files(tmp_path / whole.name) == files(whole)
    assert told == [(done, 14) for done in (3, 4, 7, 8, 11, 12, 14)]


KILLED = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from bench.data.encode import encode
from bench.data.image_folder import list_images
from bench.data.vae import load_vae
photos, out, vae = sys.argv[1:]
def wait(done, total):
    time.sleep(0.2 if done < 8 else 0)
    if done == 11:  # in the middle of the third shard
        print("there", flush=True)
        time.sleep(600)
encode(list_images(Path(photos)), Path(out), load_vae(vae, torch.device("cpu"), True), 32, "fp32", 4, 3, 1,
       on_images=wait)
"""


@pytest.mark.slow
def test_killed_in_the_middle_it_continues_to_the_same_files(
    photos: Path, whole: Path, vae_folder: Path, vae: Autoencoder, tmp_path: Path
) -> None:
    out = tmp_path / whole.name
    command = [sys.executable, "-c", KILLED, str(photos), str(out), str(vae_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert {path.name for path in out.iterdir()} == {
        "settings.json", "shard-00000.npy", "shard-00000.json", "shard-00001.npy", "shard-00001.json",
    }  # fmt: skip
    # As if it had been killed while it wrote: files aside, and a shard without its record.
    for name in (".shard-00002.npy.123", ".shard-00003.json.123", "shard-00003.npy"):
        (out / name).write_bytes(b"half")
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-0000[01].*")}
    again = run(photos, out, vae)
    assert (again.made, again.kept) == (2, 2)
    assert times == {path.name: path.stat().st_mtime_ns for path in out.glob("shard-0000[01].*")}
    assert files(out) == files(whole)


def test_a_whole_folder_is_verified_and_left(photos: Path, whole: Path, vae: Autoencoder) -> None:
    before = files(whole)
    again = run(photos, whole, vae)
    assert (again.made, again.kept, again.index) == (0, 4, read_index(whole))
    assert files(whole) == before


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)


def in_record(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        record = path.with_suffix(".json")
        record.write_text(json.dumps(json.loads(record.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        lambda path: os.truncate(path, 200),
        Path.unlink,
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: path.with_suffix(".json").write_text("{"),
        in_record(start=8),
        in_record(count=3),
    ],
    ids=["bit", "truncated", "missing", "no record", "half a record", "of other images", "too few"],
)
def test_a_spoilt_shard_is_made_again(
    photos: Path, whole: Path, vae: Autoencoder, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    out = tmp_path / whole.name
    shutil.copytree(whole, out)
    damage(out / "shard-00001.npy")
    again = run(photos, out, vae)
    assert (again.made, again.kept) == (1, 3)
    assert files(out) == files(whole)


def test_while_a_shard_is_made_again_no_index_says_that_all_are_whole(
    photos: Path, whole: Path, vae: Autoencoder, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "set")
    flip_a_bit(tmp_path / "set" / "shard-00003.npy")
    seen: list[bool] = []
    run(photos, tmp_path / "set", vae, on_images=lambda *_: seen.append((tmp_path / "set" / "index.json").exists()))
    assert seen == [False]
    assert (tmp_path / "set" / "index.json").exists()


# --- what does not fit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 16}, r"settings.json: latent_shape: \(4, 4, 4\) there, \(4, 2, 2\) now; choose another --out"),
        ({"shard_size": 5}, "settings.json: shard_size: 4 there, 5 now"),
        ({"precision": "tf32"}, "settings.json: precision: fp32 there, tf32 now"),
        ({"image_size": 36}, "--image-size 36: not a multiple of 8"),
    ],
)
def test_other_settings_are_refused(
    photos: Path, whole: Path, vae: Autoencoder, changes: dict[str, Any], message: str
) -> None:
    before = files(whole)
    with pytest.raises(InputError, match=message):
        run(photos, whole, vae, **changes)
    assert files(whole) == before


def test_another_autoencoder_scale_or_list_is_refused(
    photos: Path, whole: Path, vae_folder: Path, tmp_path: Path
) -> None:
    before = files(whole)
    weights = load_vae(str(save_vae(tmp_path / "a" / "tiny-vae", seed=1)), CPU, True)
    with pytest.raises(InputError, match=r"vae: tiny-vae@[0-9a-f]{8} there, tiny-vae@[0-9a-f]{8} now"):
        run(photos, whole, weights)
    shutil.copytree(vae_folder, tmp_path / "tiny-vae")
    config = tmp_path / "tiny-vae" / "config.json"
    config.write_text(config.read_text().replace("0.18215", "0.13025"))
    with pytest.raises(InputError, match=r"scale_factor: 0.18215 there, 0.13025 now"):
        run(photos, whole, load_vae(str(tmp_path / "tiny-vae"), CPU, True))
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos/cat/1.JPEG").rename(tmp_path / "photos/cat/0.JPEG")
    with pytest.raises(InputError, match=r"images_sha256: [0-9a-f]{64} there, "):
        run(tmp_path / "photos", whole, load_vae(str(vae_folder), CPU, True))
    assert files(whole) == before
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "settings.json").write_text("{}")
    with pytest.raises(InputError, match=r"settings.json: not the settings of `ditbench encode`"):
        run(photos, tmp_path / "out", weights)


def test_latents_that_float16_cannot_hold_are_refused(photos: Path, tmp_path: Path) -> None:
    folder = save_vae(tmp_path / "vae")
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    weights["quant_conv.bias"] += 1e5
    save_file(weights, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunError, match=r"photos/cat/1.JPEG: its latents by vae@[0-9a-f]{8} are not finite in float16"):
        run(photos, tmp_path / "out", load_vae(str(folder), CPU, True))


# --- corrupt images


@pytest.fixture
def damaged(photos: Path, tmp_path: Path) -> Path:
    """The third and all of the second shard's images damaged, in as many ways."""
    root = tmp_path / "damaged" / "photos"
    shutil.copytree(photos, root)
    os.truncate(root / "cat/deep/down/3.png", (root / "cat/deep/down/3.png").stat().st_size // 2)
    (root / PATHS[4]).write_bytes(b"")
    (root / PATHS[5]).write_text("no image")
    os.truncate(root / PATHS[6], (root / PATHS[6]).stat().st_size - 100)
    (root / PATHS[7]).unlink()
    (root / PATHS[7]).symlink_to("nowhere")
    return root


BAD = [PATHS[i] for i in (2, 4, 5, 6, 7)]


@pytest.mark.parametrize("workers", [0, 1])
def test_corrupt_images_are_named_and_counted(damaged: Path, vae: Autoencoder, tmp_path: Path, workers: int) -> None:
    with pytest.raises(InputError) as caught:
        run(damaged, tmp_path / "out", vae, workers=workers)
    message = str(caught.value)
    assert message.startswith(f"{damaged}: 5 corrupt images of 14: cat/deep/down/3.png (")
    assert f", {BAD[1]} (" in message
    assert message.endswith("), ...; replace them, or leave them out with --skip-corrupt")
    assert not (tmp_path / "out" / "index.json").exists()
    assert len(list((tmp_path / "out").glob("shard-*.json"))) == 4, "all shards were made"


def test_a_part_names_its_own_corrupt_images_and_the_last_one_all(
    damaged: Path, vae: Autoencoder, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="4 corrupt images of 14"):
        run(damaged, tmp_path / "out", vae, part=Part(1, 3))
    assert run(damaged, tmp_path / "out", vae, part=Part(2, 3)).index is None
    with pytest.raises(InputError, match="5 corrupt images of 14"):
        run(damaged, tmp_path / "out", vae, part=Part(0, 3))
    assert not (tmp_path / "out" / "index.json").exists()


def test_corrupt_images_can_be_left_out_and_are_listed(
    damaged: Path, vae: Autoencoder, whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError):
        run(damaged, tmp_path / "out", vae)
    encoded = run(damaged, tmp_path / "out", vae, skip_corrupt=True)
    assert (encoded.made, encoded.kept) == (0, 4), "what was made before is used"
    index = read_index(tmp_path / "out")
    assert [image.path for image in index.corrupt] == BAD
    assert all("Error: " in image.reason for image in index.corrupt)
    assert (index.count, [shard.file for shard in index.shards]) == (
        9, ["shard-00000.npy", "shard-00002.npy", "shard-00003.npy"],
    )  # fmt: skip
    kept = [position for position, name in enumerate(PATHS) if name not in BAD]
    latents = Latents(tmp_path / "out", CPU)
    _, labels = latents.batch(torch.arange(9), slice(None), torch.Generator().manual_seed(0))
    assert labels.tolist() == [list_images(damaged).labels[position] for position in kept]
    assert np.allclose(moments(tmp_path / "out"), moments(whole)[kept], rtol=2e-3, atol=1e-4)


def test_a_replaced_image_is_noticed(
    damaged: Path, photos: Path, vae: Autoencoder, whole: Path, tmp_path: Path
) -> None:
    run(damaged, tmp_path / whole.name, vae, skip_corrupt=True)
    for name in BAD[1:]:
        (damaged / name).unlink()
        shutil.copy(photos / name, damaged / name)
    with pytest.raises(InputError, match="1 corrupt images of 14"):
        run(damaged, tmp_path / whole.name, vae)
    (damaged / BAD[0]).unlink()
    shutil.copy(photos / BAD[0], damaged / BAD[0])
    assert run(damaged, tmp_path / whole.name, vae).made == 1
    assert but_for_times(tmp_path / whole.name) == but_for_times(whole)


def but_for_times(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, without the hashes of the images' times."""
    return {name: re.sub(rb'"stamps": "[0-9a-f]{64}"', b"", data) for name, data in files(folder).items()}


def another_image(path: Path) -> None:
    """Of the same size in bytes, with the old time of modification, under the same name."""
    times, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:-600] + bytes(byte ^ 0x80 for byte in data[-600:]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_whole_shard_is_made_again_of_a_replaced_image_and_no_other_is(
    photos: Path, vae: Autoencoder, tmp_path: Path
) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    run(tmp_path / "photos", tmp_path / "set", vae)
    before = files(tmp_path / "set")
    another_image(tmp_path / "photos" / PATHS[9])  # a .bmp, whose last bytes are pixels
    again = run(tmp_path / "photos", tmp_path / "set", vae)
    assert (again.made, again.kept) == (1, 3)
    changed = {name for name, data in files(tmp_path / "set").items() if data != before[name]}
    assert changed == {"shard-00002.npy", "shard-00002.json", "index.json"}
    assert run(tmp_path / "photos", tmp_path / "set", vae).made == 0


def test_a_copy_of_the_images_is_known_by_its_content(
    photos: Path, vae: Autoencoder, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(photos, tmp_path / "photos", copy_function=shutil.copyfile)
    shutil.copytree(whole, tmp_path / "set")
    assert run(tmp_path / "photos", tmp_path / "set", vae).kept == 4
    monkeypatch.setattr("bench.data.encode.source_of", lambda path: pytest.fail("was read again"))
    assert run(tmp_path / "photos", tmp_path / "set", vae).kept == 4


def test_all_content_is_compared_on_request(
    photos: Path, vae: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system without times."""
    monkeypatch.setattr("bench.data.image_folder.stamp", lambda path: "")
    monkeypatch.setattr("bench.data.encode.stamp", lambda path: "")
    shutil.copytree(photos, tmp_path / "photos")
    run(tmp_path / "photos", tmp_path / "set", vae)
    another_image(tmp_path / "photos" / PATHS[9])
    assert run(tmp_path / "photos", tmp_path / "set", vae).made == 0
    assert run(tmp_path / "photos", tmp_path / "set", vae, verify_images=True).made == 1


def test_records_of_before_images_were_compared_are_taken_as_they_are(
    photos: Path, vae: Autoencoder, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "set")
    for path in (tmp_path / "set").glob("shard-*.json"):
        record = json.loads(path.read_text())
        del record["sources"]
        path.write_text(json.dumps(record))
    assert run(photos, tmp_path / "set", vae).kept == 4
    assert run(photos, tmp_path / "set", vae, verify_images=True).made == 4
    assert files(tmp_path / "set").keys() == files(whole).keys()


def test_names_that_are_not_utf8_are_encoded_and_read_back(photos: Path, vae: Autoencoder, tmp_path: Path) -> None:
    """Classes, and images that are corrupt, whose names the records and the index hold."""
    out = tmp_path / "latents"
    names = (b"caf\xe9/1.png", b"caf\xe9/\xff.png", b"eel/0.png")
    good, bad, of_eel = (tmp_path / "photos" / os.fsdecode(name) for name in names)
    for path in (good, of_eel):
        path.parent.mkdir(parents=True)
        shutil.copy(photos / "dog" / "0.png", path)
    bad.write_bytes(b"no image")
    assert run(tmp_path / "photos", out, vae, shard_size=2, skip_corrupt=True).index == read_index(out)
    index = read_index(out)
    assert index.classes == ("caf\\xe9", "eel")
    assert [image.path for image in index.corrupt] == ["caf\\xe9/\\xff.png"]
    assert len(Latents(out, CPU)) == 2
    assert run(tmp_path / "photos", out, vae, shard_size=2, skip_corrupt=True).kept == 2
    shutil.copy(photos / "dog" / "0.png", bad)
    assert run(tmp_path / "photos", out, vae, shard_size=2).made == 1
    assert read_index(out).count == 3


def test_a_record_that_cannot_be_read_is_not_taken_for_one_of_another_part(
    photos: Path, vae: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(photos, tmp_path / "set", vae, part=Part(0, 2))
    (tmp_path / "set" / "shard-00002.json").write_text("{")
    found = run(photos, tmp_path / "set", vae, part=Part(1, 2))
    assert (found.index, found.missing, found.damaged) == (None, 1, (tmp_path / "set" / "shard-00002.json",))
    monkeypatch.setattr("bench.data.encode.read_record", lambda out, shard: None)
    with pytest.raises(RunError, match=r"shard-00000\.json: was written, and cannot be read back"):
        run(photos, tmp_path / "set", vae)


def test_a_set_without_one_readable_image_is_refused(tmp_path: Path, vae: Autoencoder) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "0.png").write_text("no image")
    with pytest.raises(InputError, match="out: all 1 images are corrupt"):
        run(tmp_path / "images", tmp_path / "out", vae, skip_corrupt=True)
