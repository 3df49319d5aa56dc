"""Files of other projects (autoencoders, feature extractors, reference statistics, official weights), fetched once.

<cache>/vae/<name>/      diffusers' AutoencoderKL folders; others put there by hand are found by their name too
<cache>/text/<name>/     text encoders with their tokenizers; others put there by hand are found by their name too
<cache>/extractors/      weights of the networks whose features scores compare
<cache>/references/      reference statistics; others put there by hand, <name>.npz or <name>/, are found too
<cache>/dit/             official DiT checkpoints
<cache>/manifest.json    path -> sha256, size, mtime_ns, url and time of what was fetched

The cache is $DITBENCH_CACHE, else the user's cache folder. `locate` only reads what is there, without a lock: many jobs
may share a read-only cache. Fetching takes a lock on the file, so that several processes fetch it once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import platformdirs

from models.files.download import HUB, FetchError, Unreachable, at_endpoint, discard, download

log = logging.getLogger(__name__)

State = Literal["present", "not in the manifest", "fetched", "damaged", "missing"]
# Called with (path under the cache, bytes that are here, bytes in all or None if the server does not say).
Progress = Callable[[str, int, int | None], None]

ADM = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet"
META = "https://dl.fbaipublicfiles.com"
FIDELITY = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0"


class MissingAsset(FileNotFoundError):
    """A file is not in the cache, or an asset is unknown. One line, with the command that fetches it."""


class DamagedAsset(OSError):
    """A file in the cache is not what was fetched. One line, with the command that fetches it again."""


@dataclass(frozen=True)
class AssetFile:
    """`path` under the cache, where it comes from, and the first digits of its SHA-256 as its authors publish them."""

    path: str
    url: str
    sha256: str | None = None


@dataclass(frozen=True)
class Asset:
    """`path` under the cache is what its users open: a file, or a folder of several."""

    what: str
    path: str
    files: tuple[AssetFile, ...]


@dataclass(frozen=True)
class FileStatus:
    """A file of an asset as it is in the cache: bytes, and SHA-256 where it was computed."""

    path: Path
    state: State
    size: int | None = None
    sha256: str | None = None
    problem: str = ""


def _vae(name: str) -> Asset:
    names = ("config.json", "diffusion_pytorch_model.safetensors")
    files = tuple(AssetFile(f"vae/{name}/{file}", f"{HUB}/{name}/resolve/main/{file}") for file in names)
    return Asset("autoencoder", f"vae/{name}", files)


def _text_encoder(name: str, *names: str) -> Asset:
    files = tuple(AssetFile(f"text/{name}/{file}", f"{HUB}/{name}/resolve/main/{file}") for file in names)
    return Asset("text encoder", f"text/{name}", files)


def _file(what: str, path: str, url: str, sha256: str | None = None) -> Asset:
    return Asset(what, path, (AssetFile(path, url, sha256),))


_INCEPTION = "weights-inception-2015-12-05-6726825d.pth"

ASSETS = {
    "stabilityai/sd-vae-ft-ema": _vae("stabilityai/sd-vae-ft-ema"),
    "stabilityai/sd-vae-ft-mse": _vae("stabilityai/sd-vae-ft-mse"),
    # The T5 of PixArt-alpha, in its authors' safetensors.
    "PixArt-alpha/PixArt-XL-2-512x512": _text_encoder(
        "PixArt-alpha/PixArt-XL-2-512x512",
        "text_encoder/config.json",
        "text_encoder/model.safetensors.index.json",
        *(f"text_encoder/model-{number:05d}-of-00004.safetensors" for number in range(1, 5)),
        "tokenizer/added_tokens.json",
        "tokenizer/special_tokens_map.json",
        "tokenizer/spiece.model",
        "tokenizer/tokenizer_config.json",
    ),
    "openai/clip-vit-large-patch14": _text_encoder(
        "openai/clip-vit-large-patch14",
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
        *("vocab.json", "merges.txt"),
    ),
    "inception-v3-compat": _file("features", f"extractors/{_INCEPTION}", f"{FIDELITY}/{_INCEPTION}", "6726825d"),
    "dinov2-vitl14": _file(
        "features", "extractors/dinov2_vitl14_pretrain.pth", f"{META}/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth"
    ),
    "adm-imagenet-256": _file(
        "reference", "references/adm-imagenet-256.npz", f"{ADM}/256/VIRTUAL_imagenet256_labeled.npz"
    ),
    "adm-imagenet-512": _file("reference", "references/adm-imagenet-512.npz", f"{ADM}/512/VIRTUAL_imagenet512.npz"),
    "DiT-XL/2-256": _file("weights", "dit/DiT-XL-2-256x256.pt", f"{META}/DiT/models/DiT-XL-2-256x256.pt"),
    "DiT-XL/2-512": _file("weights", "dit/DiT-XL-2-512x512.pt", f"{META}/DiT/models/DiT-XL-2-512x512.pt"),
}


def cache_folder() -> Path:
    """$DITBENCH_CACHE, else the user's cache folder. It need not exist."""
    chosen = os.environ.get("DITBENCH_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("ditbench", appauthor=False)


def locate(name: str, offline: bool) -> Path:
    """The file or folder of an asset, of <cache>/vae/<name>/, of <cache>/references/<name>.npz or <name>/.

    What is missing is fetched first, unless `offline`. Files are compared with the manifest by their size and, where
    their time is not the one recorded (of a copied cache, say), by their checksum; `prepare` compares checksums always.

    Raises:
        MissingAsset: not there and `offline`, or a name that nothing has.
        DamagedAsset: a file is not what was fetched, or manifest.json cannot be read.
        FetchError: it could not be fetched.
    """
    if name not in ASSETS:
        return _put_by_hand(name)
    for file, status in zip(ASSETS[name].files, check(name, verify=False), strict=True):
        if status.state == "damaged":
            raise DamagedAsset(f"{status.path}: {status.problem}; `{command(name)}` fetches it again")
        if status.state == "missing" and offline:
            raise MissingAsset(f"{status.path}: missing; {how_to_get(name)}")
        if status.state == "missing":
            log.info("fetching %s", file.url)
            _fetch(name, file, None)
    return cache_folder() / ASSETS[name].path


def check(name: str, verify: bool) -> list[FileStatus]:
    """How the files of an asset are in the cache, by size and time; with `verify`, by checksum. Nothing is changed.

    Raises:
        DamagedAsset: manifest.json, or a file, cannot be read.
    """
    manifest = _read_manifest()
    return [_status(file, manifest.get(file.path), verify) for file in ASSETS[name].files]


def check_content(path: Path, sha256: str) -> None:
    """Compare a file's SHA-256, where it was computed anyway, with that of what was fetched. Others have none.

    Raises:
        DamagedAsset: it is another file's, or manifest.json cannot be read.
    """
    for relative, entry in _read_manifest().items():
        if path == cache_folder() / relative and sha256 != entry["sha256"]:
            names = [name for name, asset in ASSETS.items() if relative in [file.path for file in asset.files]]
            begins = f"its SHA-256 begins with {sha256[:8]}, in manifest.json with {entry['sha256'][:8]}"
            raise DamagedAsset(f"{path}: {begins}; `{command(*names)}` fetches it again")


def prepare(name: str, offline: bool, progress: Progress | None = None) -> list[FileStatus]:
    """Verify the files of an asset; fetch those that are missing or damaged, unless `offline`.

    Raises:
        DamagedAsset: manifest.json, or a file, cannot be read.
        FetchError: it could not be fetched.
    """
    found = check(name, verify=True)
    if offline:
        return found
    files = ASSETS[name].files
    return [
        _fetch(name, file, progress) if status.state in ("missing", "damaged") else status
        for file, status in zip(files, found, strict=True)
    ]


def command(*names: str) -> str:
    """What to type to get assets."""
    return f"ditbench prepare {' '.join(names)}"


def how_to_get(*names: str) -> str:
    """The end of an error about assets that are not here."""
    return f"`{command(*names)}` on a machine with a network and the same DITBENCH_CACHE fetches what is missing"


def _put_by_hand(name: str) -> Path:
    cache = cache_folder()
    parts = PurePosixPath(name).parts
    if parts and not {"/", ".."} & set(parts):
        if (cache / "vae" / name / "config.json").is_file():
            return cache / "vae" / name
        if (path := cache / "references" / f"{name}.npz").is_file() or (path := cache / "references" / name).is_dir():
            return path
    raise MissingAsset(
        f"{name!r}: no such asset; accepted: {', '.join(ASSETS)}, the name of an autoencoder's folder under "
        f"{cache / 'vae'}, or of a reference (.npz or folder) under {cache / 'references'}"
    )


def _status(file: AssetFile, entry: dict[str, Any] | None, verify: bool) -> FileStatus:
    path = cache_folder() / file.path
    if not path.is_file():
        return FileStatus(path, "missing")
    status = path.stat()
    size = status.st_size
    if entry and size != entry["size"]:
        return FileStatus(path, "damaged", size, problem=f"{size:,} bytes, but {entry['size']:,} were fetched")
    # Entries of before times were recorded are believed.
    is_another = entry is not None and status.st_mtime_ns != entry.get("mtime_ns", status.st_mtime_ns)
    digest = _sha256(path) if verify or is_another else None
    if digest and (problem := _mismatch(digest, file, entry)):
        return FileStatus(path, "damaged", size, digest, problem)
    return FileStatus(path, "present" if entry else "not in the manifest", size, digest)


def _mismatch(digest: str, file: AssetFile, entry: dict[str, Any] | None, server: str | None = None) -> str | None:
    """How a file's SHA-256 differs from the published one, the recorded one or the server's, if any."""
    recorded = entry["sha256"] if entry else None
    for whose, expected in (("as published", file.sha256), ("in manifest.json", recorded), ("by the server", server)):
        if expected and not digest.startswith(expected):
            return f"its SHA-256 begins with {digest[:8]}, {whose} with {expected[:8]}"
    return None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DamagedAsset(f"{path}: cannot be read ({error.strerror})") from None


def _read_manifest() -> dict[str, dict[str, Any]]:
    path = cache_folder() / "manifest.json"
    try:
        content = json.loads(path.read_bytes())
        if not all(isinstance(entry["size"], int) and isinstance(entry["sha256"], str) for entry in content.values()):
            raise TypeError
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise DamagedAsset(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise DamagedAsset(f"{path}: not a manifest; delete it, files that are there stay accepted") from None
    return content


def _record(path: str, entry: dict[str, Any]) -> None:
    target = cache_folder() / "manifest.json"
    with _locked(target):
        content = {**_read_manifest(), path: entry}
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        with aside.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        _move(aside, target)


def _fetch(name: str, file: AssetFile, progress: Progress | None) -> FileStatus:
    """Bring a file to its place, unless another process did so meanwhile."""
    target = cache_folder() / file.path
    try:
        with _locked(target):
            entry = _read_manifest().get(file.path)
            status = _status(file, entry, verify=True)
            return _fetched(file, target, entry, progress) if status.state in ("missing", "damaged") else status
    except Unreachable as error:
        raise FetchError(f"{error}; {how_to_get(name)}") from None
    except (FetchError, DamagedAsset):
        raise
    except OSError as error:
        raise FetchError(f"{target}: cannot be written ({error.strerror or error})") from None


def _fetched(file: AssetFile, target: Path, entry: dict[str, Any] | None, progress: Progress | None) -> FileStatus:
    part = target.with_name(f".{target.name}.part")
    server = download(file.url, part, progress and partial(progress, file.path))
    digest, size = _sha256(part), part.stat().st_size
    if problem := _mismatch(digest, file, entry, server):
        discard(part)
        raise FetchError(f"{at_endpoint(file.url)}: what came is not {target.name}: {problem}")
    _move(part, target)
    discard(part)
    found = {"sha256": digest, "size": size, "mtime_ns": target.stat().st_mtime_ns, "url": at_endpoint(file.url)}
    _record(file.path, {**found, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
    return FileStatus(target, "fetched", size, digest)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file that is about to be written; wait for it if another process does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock_file = path.with_name(f".{path.name}.lock")
    try:
        lock = lock_file.open("a")
    except PermissionError:
        lock = lock_file.open("r")  # another user's, which others may only read: enough for its lock
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _move(aside: Path, target: Path) -> None:
    aside.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
