"""Fetching once: from a server on the loopback that breaks, refuses and changes, into caches of every state."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
import typer
from file_server import FileServer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bench import assets_cli
from bench.errors import InputError
from models import assets, download
from models.assets import ASSETS, Asset, AssetFile, DamagedAsset, MissingAsset, check, locate, prepare
from models.download import FetchError

DATA = random.Random(0).randbytes(3_000_000)  # three blocks
OTHER = random.Random(1).randbytes(3_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
CONFIG = b'{"a": 1}'
# A process of its own that knows the test's server, tries only once, and prepares what it is told to.
ELSEWHERE = """
import sys
from models import assets, download
download.RETRY_WAITS = ()
for name in sys.argv[2:]:
    assets.ASSETS[name] = assets.Asset("x", f"x/{name}", (assets.AssetFile(f"x/{name}", f"{sys.argv[1]}/{name}"),))
    print(*(status.state for status in assets.prepare(name, offline=False)))
"""


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer({"/big": DATA, "/config": CONFIG, "/other": OTHER}) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the assets `big` (one file) and `vae` (two) come from the test's server, without waiting."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DITBENCH_CACHE", str(folder))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "RETRY_WAITS", (0.0, 0.0))
    big = AssetFile("x/big", server.url("/big"))
    vae = (AssetFile("vae/v/config.json", server.url("/config")), AssetFile("vae/v/w.bin", server.url("/other")))
    monkeypatch.setitem(ASSETS, "big", Asset("weights", "x/big", (big,)))
    monkeypatch.setitem(ASSETS, "vae", Asset("autoencoder", "vae/v", vae))
    return folder


def published(sha256: str) -> None:
    """Have `big` come with a published checksum."""
    ASSETS["big"] = Asset("weights", "x/big", (AssetFile("x/big", ASSETS["big"].files[0].url, sha256),))


def manifest(cache: Path) -> dict[str, Any]:
    return json.loads((cache / "manifest.json").read_text()) if (cache / "manifest.json").exists() else {}


def files(folder: Path) -> set[str]:
    """Files in a folder, locks left out."""
    return {path.name for path in folder.glob("*") if path.suffix != ".lock"}


def one_line(error: BaseException, *fragments: str) -> None:
    line = str(error)
    assert len(line.splitlines()) == 1
    for fragment in fragments:
        assert fragment in line


def test_a_missing_file_is_fetched_once_and_recorded(cache: Path, server: FileServer) -> None:
    before = time.time()
    path = locate("big", offline=False)
    assert path == cache / "x" / "big"
    assert path.read_bytes() == DATA
    entry = manifest(cache)["x/big"]
    assert (entry["sha256"], entry["size"], entry["url"]) == (SHA256, len(DATA), server.url("/big"))
    assert abs(time.mktime(time.strptime(entry["time"][:19], "%Y-%m-%dT%H:%M:%S")) - before) < 120
    assert files(cache / "x") == {"big"}
    assert locate("big", offline=False) == locate("big", offline=True) == path
    assert [status.state for status in prepare("big", offline=False)] == ["present"]
    assert len(server.requests) == 1


def test_an_asset_of_several_files_is_their_folder(cache: Path) -> None:
    folder = locate("vae", offline=False)
    assert folder == cache / "vae" / "v"
    assert {path: (folder / path).read_bytes() for path in files(folder)} == {"config.json": CONFIG, "w.bin": OTHER}
    assert set(manifest(cache)) == {"vae/v/config.json", "vae/v/w.bin"}
    (folder / "w.bin").unlink()
    with pytest.raises(MissingAsset, match=r"w\.bin: missing"):
        locate("vae", offline=True)


def test_a_broken_connection_is_continued_where_it_broke(cache: Path, server: FileServer) -> None:
    server.breaks = [1_500_000, 700_001]
    seen: list[tuple[str, int, int | None]] = []
    (status,) = prepare("big", offline=False, progress=lambda *news: seen.append(news))
    assert (status.state, status.size, status.sha256) == ("fetched", len(DATA), SHA256)
    assert (cache / "x" / "big").read_bytes() == DATA
    assert server.header("Range") == [None, "bytes=1500000-", "bytes=2200001-"]
    assert {(path, total) for path, _, total in seen} == {("x/big", len(DATA))}
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1][1] == len(DATA)


def test_another_command_continues_what_one_left(cache: Path, server: FileServer) -> None:
    server.breaks = [1_000_000, 0, 0]
    with pytest.raises(FetchError) as caught:
        locate("big", offline=False)
    one_line(caught.value, server.url("/big"), "1,000,000 of 3,000,000 bytes", "`ditbench prepare big`")
    assert not (cache / "x" / "big").exists()
    with pytest.raises(MissingAsset):  # a beginning is not the file
        locate("big", offline=True)
    assert locate("big", offline=False).read_bytes() == DATA
    assert server.header("Range")[-1] == "bytes=1000000-"


@pytest.mark.parametrize("change", ["content", "no ranges", "no version"])
def test_what_cannot_be_continued_begins_again(cache: Path, server: FileServer, change: str) -> None:
    server.versions = change != "no version"
    server.breaks = [1_000_000, 0, 0] if server.versions else [1_000_000] * 3
    with pytest.raises(FetchError):
        locate("big", offline=False)
    server.ranges = change != "no ranges"
    server.files["/big"] = OTHER if change == "content" else DATA
    server.requests.clear()
    assert locate("big", offline=False).read_bytes() == server.files["/big"]
    assert server.header("Range") == [None if change == "no version" else "bytes=1000000-"]


@pytest.mark.parametrize(("length", "ranges"), [(3_000_000, ["bytes=3000000-"]), (3_000_001, ["bytes=3000001-", None])])
def test_all_bytes_here_already_and_too_many(
    cache: Path, server: FileServer, length: int, ranges: list[str | None]
) -> None:
    """As a process leaves it that is killed while it computes the checksum; and a leftover of some other file."""
    (cache / "x").mkdir(parents=True)
    (cache / "x" / ".big.part").write_bytes((DATA + b"x")[:length])
    (cache / "x" / ".big.part.version").write_text(f'"{hashlib.md5(DATA).hexdigest()}"')
    assert locate("big", offline=False).read_bytes() == DATA
    assert server.header("Range") == ranges
    assert files(cache / "x") == {"big"}


@settings(max_examples=25, deadline=None)
@given(
    data=st.binary(min_size=1, max_size=5000),
    cuts=st.lists(st.integers(0, 5000), max_size=4),
    ranges=st.booleans(),
    versions=st.booleans(),
    block=st.integers(1, 3000),
)
def test_whatever_breaks_the_content_is_whole(
    data: bytes, cuts: list[int], ranges: bool, versions: bool, block: int
) -> None:
    patches = (patch.object(download, "RETRY_WAITS", (0.0,) * 4), patch.object(download, "BLOCK", block))
    environment = patch.dict(os.environ, {"no_proxy": "127.0.0.1"})
    with TemporaryDirectory() as folder, patches[0], patches[1], environment, FileServer({"/x": data}) as server:
        server.ranges, server.versions, server.breaks = ranges, versions, list(cuts)
        download.download(server.url("/x"), Path(folder) / "part")
        assert (Path(folder) / "part").read_bytes() == data


def test_a_file_with_another_checksum_than_published_is_not_kept(cache: Path) -> None:
    published("6726825d")
    with pytest.raises(FetchError) as caught:
        locate("big", offline=False)
    one_line(caught.value, "/big", SHA256[:8], "as published with 6726825d")
    assert files(cache / "x") == set()
    assert manifest(cache) == {}
    published(SHA256[:8])
    assert locate("big", offline=False).read_bytes() == DATA


def test_a_file_that_changed_on_the_server_does_not_replace_what_is_recorded(cache: Path, server: FileServer) -> None:
    locate("big", offline=False).unlink()
    recorded = manifest(cache)
    server.files["/big"] = OTHER
    with pytest.raises(FetchError) as caught:
        locate("big", offline=False)
    one_line(caught.value, f"in manifest.json with {SHA256[:8]}")
    assert files(cache / "x") == set()
    assert manifest(cache) == recorded


def test_the_hub_is_asked_at_its_endpoint_and_no_other_host_gets_the_token(
    cache: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = f"{download.HUB}/org/vae/resolve/main/w"
    monkeypatch.setitem(ASSETS, "big", Asset("weights", "x/big", (AssetFile("x/big", hub),)))
    monkeypatch.setenv("HF_TOKEN", "secret")
    with FileServer() as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint.url("/"))
        stated = {"X-Linked-Etag": f'"{hashlib.sha256(OTHER).hexdigest()}"'}
        endpoint.redirects["/org/vae/resolve/main/w"] = (endpoint.url("/here"), stated)
        endpoint.redirects["/here"] = (server.url("/big"), {})
        with pytest.raises(FetchError) as caught:
            locate("big", offline=False)
        one_line(caught.value, f"by the server with {hashlib.sha256(OTHER).hexdigest()[:8]}")
        assert files(cache / "x") == set()
        assert endpoint.header("Authorization") == ["Bearer secret"] * 2
        endpoint.redirects["/org/vae/resolve/main/w"] = (server.url("/big"), {"X-Linked-Etag": f'"{SHA256}"'})
        assert locate("big", offline=False).read_bytes() == DATA
        assert manifest(cache)["x/big"]["url"] == endpoint.url("/org/vae/resolve/main/w")
    assert server.header("Authorization") == [None, None]


def test_only_the_hub_gets_the_token(cache: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    locate("big", offline=False)
    assert server.header("Authorization") == [None]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_not_asked_again(cache: Path, server: FileServer, status: int) -> None:
    server.answers = [status]
    with pytest.raises(FetchError) as caught:
        locate("big", offline=False)
    one_line(caught.value, server.url("/big"), f"the server answers {status}")
    assert len(server.requests) == 1


def test_a_busy_server_is_asked_again(cache: Path, server: FileServer) -> None:
    server.answers = [503, 429]
    assert locate("big", offline=False).read_bytes() == DATA
    server.answers = [503, 500, 502]
    with pytest.raises(FetchError) as caught:
        locate("vae", offline=False)
    one_line(caught.value, "the server answers 502", "`ditbench prepare vae`")


def test_no_network_names_the_command(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # not listening: connections are refused
        url = f"http://127.0.0.1:{free.getsockname()[1]}/big"
        monkeypatch.setitem(ASSETS, "big", Asset("weights", "x/big", (AssetFile("x/big", url),)))
        with pytest.raises(FetchError) as caught:
            locate("big", offline=False)
    one_line(caught.value, url, "refused", "`ditbench prepare big` on a machine with a network", "same DITBENCH_CACHE")


def test_a_full_disk(cache: Path, server: FileServer) -> None:
    (cache / "x").mkdir(parents=True)
    (cache / "x" / ".big.part").symlink_to("/dev/full")
    with pytest.raises(FetchError) as caught:
        locate("big", offline=False)
    one_line(caught.value, f"{cache}/x/big", "No space left on device")
    assert not (cache / "x" / "big").exists()
    (cache / "x" / ".big.part").unlink()
    server.claims = 10**15
    server.requests.clear()
    with pytest.raises(FetchError) as caught:
        locate("big", offline=False)
    one_line(caught.value, "1000000.0 GB are to come", "GB are free")
    assert len(server.requests) == 1
    assert not (cache / "x" / "big").exists()


@pytest.mark.parametrize("folder", ["/proc/no-cache", "/dev/null/cache"])
def test_a_cache_that_cannot_be_made(cache: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setenv("DITBENCH_CACHE", folder)
    with pytest.raises(FetchError) as caught:
        locate("big", offline=False)
    one_line(caught.value, f"{folder}/x/big", "cannot be written")


def test_an_empty_cache_offline(cache: Path, server: FileServer) -> None:
    with pytest.raises(MissingAsset) as caught:
        locate("big", offline=True)
    one_line(caught.value, f"{cache}/x/big: missing", "`ditbench prepare big`", "same DITBENCH_CACHE")
    assert [status.state for status in prepare("vae", offline=True)] == ["missing", "missing"]
    assert not cache.exists()
    assert server.requests == []


def test_a_cache_may_be_read_only(cache: Path, server: FileServer) -> None:
    for name in ("big", "vae"):
        locate(name, offline=False)
    (cache / "references").mkdir()
    (cache / "references" / "mine.npz").write_bytes(b"x")
    every = [cache, *cache.rglob("*")]
    for path in every:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = [(path, path.stat().st_mtime_ns) for path in every]  # a folder's changes even when a file comes and goes
    try:
        for offline in (True, False):
            for name in ("big", "vae", "mine"):
                assert locate(name, offline).exists()
            assert [status.state for status in prepare("vae", offline)] == ["present", "present"]
        assert [(path, path.stat().st_mtime_ns) for path in [cache, *cache.rglob("*")]] == before
        assert len(server.requests) == 3
    finally:
        for path in every:
            path.chmod(0o755)


def elsewhere(server: FileServer, *names: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", ELSEWHERE, server.url(""), *names]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_fetch_a_file_once(cache: Path, server: FileServer) -> None:
    server.pause = 1.0
    both = [elsewhere(server, "big", "config"), elsewhere(server, "big", "other")]
    ended = [process.communicate(timeout=60) for process in both]
    assert [error for _, error in ended] == ["", ""]
    firsts = sorted(output.split()[0] for output, _ in ended)
    assert firsts == ["fetched", "present"]
    assert sorted(path for path, _ in server.requests) == ["/big", "/config", "/other"]
    assert (cache / "x" / "big").read_bytes() == DATA
    assert set(manifest(cache)) == {"x/big", "x/config", "x/other"}


def test_a_killed_fetch_leaves_nothing_that_is_taken_for_the_file(cache: Path, server: FileServer) -> None:
    server.pause = 30.0
    process = elsewhere(server, "big")
    part = cache / "x" / ".big.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size >= 1 << 20):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = part.stat().st_size
    with pytest.raises(MissingAsset):
        locate("big", offline=True)
    server.pause = 0.0
    assert locate("big", offline=False).read_bytes() == DATA
    assert server.header("Range") == [None, f"bytes={kept}-"]


def test_a_truncated_file_is_found_and_fetched_again(cache: Path, server: FileServer) -> None:
    path = locate("big", offline=False)
    path.write_bytes(DATA[:-1])
    for offline in (True, False):
        with pytest.raises(DamagedAsset) as caught:
            locate("big", offline)
        one_line(caught.value, f"{path}: 2,999,999 bytes, but 3,000,000 were fetched", "`ditbench prepare big`")
    (status,) = prepare("big", offline=True)
    assert (status.state, status.problem) == ("damaged", "2,999,999 bytes, but 3,000,000 were fetched")
    assert len(server.requests) == 1
    (status,) = prepare("big", offline=False)
    assert status.state == "fetched"
    assert path.read_bytes() == DATA


def test_a_flipped_bit_is_found_by_the_checksum(cache: Path) -> None:
    path = locate("big", offline=False)
    path.write_bytes(bytes([DATA[0] ^ 1]) + DATA[1:])
    assert check("big", verify=False)[0].state == "present"
    (status,) = check("big", verify=True)
    assert status.state == "damaged"
    assert status.problem == f"its SHA-256 begins with {status.sha256[:8]}, in manifest.json with {SHA256[:8]}"  # type: ignore[index]
    prepare("big", offline=False)
    assert path.read_bytes() == DATA


def test_a_file_put_there_by_hand_is_taken(cache: Path, server: FileServer) -> None:
    (cache / "x").mkdir(parents=True)
    (cache / "x" / "big").write_bytes(OTHER)
    assert locate("big", offline=True).read_bytes() == OTHER
    (status,) = prepare("big", offline=False)
    assert (status.state, status.sha256) == ("not in the manifest", hashlib.sha256(OTHER).hexdigest())
    assert server.requests == []
    published(SHA256[:8])
    assert check("big", verify=True)[0].state == "damaged"


def test_autoencoders_and_references_of_the_user_are_found_by_name(cache: Path) -> None:
    for folder in ("vae/mine", "vae/org/mine", "references/folder", "vae/empty"):
        (cache / folder).mkdir(parents=True)
    (cache / "vae/mine/config.json").write_text("{}")
    (cache / "vae/org/mine/config.json").write_text("{}")
    (cache / "references/stats.npz").write_bytes(b"x")
    assert locate("mine", offline=True) == cache / "vae/mine"
    assert locate("org/mine", offline=False) == cache / "vae/org/mine"
    assert locate("stats", offline=True) == cache / "references/stats.npz"
    assert locate("folder", offline=True) == cache / "references/folder"
    with pytest.raises(MissingAsset):  # no config.json
        locate("empty", offline=True)


@pytest.mark.parametrize("name", ["", ".", "..", "../vae/mine", "references", "sd-vae-ft-ema", "/etc"])
def test_a_name_that_nothing_has(cache: Path, name: str) -> None:
    (cache / "vae" / "mine").mkdir(parents=True)
    (cache / "vae" / "mine" / "config.json").write_text("{}")
    (cache / "references").mkdir()
    with pytest.raises(MissingAsset) as caught:
        locate(name, offline=False)
    one_line(caught.value, repr(name), *ASSETS, f"{cache}/vae", f"{cache}/references")


@pytest.mark.parametrize("content", ["", "[]", '{"x/big": 1}', '{"x/big": {"size": "1", "sha256": ""}}', "\xff"])
def test_a_damaged_manifest_is_named(cache: Path, content: str) -> None:
    path = locate("big", offline=False)
    (cache / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(DamagedAsset) as caught:
        locate("big", offline=True)
    one_line(caught.value, f"{cache}/manifest.json", "delete it")
    (cache / "manifest.json").unlink()
    assert locate("big", offline=True) == path


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DITBENCH_CACHE", "~/mine")
    assert assets.cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("DITBENCH_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert assets.cache_folder().name == "ditbench"
    assert assets.cache_folder().is_relative_to(tmp_path)


def test_the_table_agrees_with_torch_fidelity_and_has_no_file_twice() -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    (inception,) = ASSETS["inception-v3-compat"].files
    assert inception.url == URL_INCEPTION_V3
    every = [file for asset in ASSETS.values() for file in asset.files]
    assert len({file.path for file in every}) == len({file.url for file in every}) == len(every)
    for name, asset in ASSETS.items():
        assert all(Path(file.path).is_relative_to(asset.path) for file in asset.files)
        assert (asset.path == f"vae/{name}") == (asset.what == "autoencoder") == (len(asset.files) > 1)


@dataclass(frozen=True)
class Ended:
    """What a command printed, and the error it ended with: `bench.cli.main` makes a line and status 2 of it."""

    out: str
    error: BaseException | None

    @property
    def rows(self) -> list[list[str]]:
        """Cells of the printed table, without its headings."""
        return [re.split("  +", line) for line in self.out.splitlines()[1:]]


@pytest.fixture
def prepare_command(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """`ditbench prepare`, with `big` and `vae` as the default."""
    app = typer.Typer()
    app.command()(assets_cli.prepare)
    monkeypatch.setattr(assets_cli, "DEFAULT", ("big", "vae"))

    def run(*arguments: str) -> Ended:
        result = CliRunner().invoke(app, arguments)
        assert result.stderr == ""  # no progress bar where there is no terminal
        return Ended(result.stdout, result.exception)

    return run


def test_prepare_says_what_it_fetched_and_what_is_there(prepare_command: Callable[..., Ended]) -> None:
    config, other = (hashlib.sha256(data).hexdigest()[:12] for data in (CONFIG, OTHER))
    first = prepare_command()
    assert first.error is None
    assert first.rows == [
        ["big", "big", "3,000,000", "fetched", SHA256[:12]],
        ["vae", "config.json", "8", "fetched", config],
        ["vae", "w.bin", "3,000,000", "fetched", other],
    ]
    again = prepare_command("vae", "vae", "--offline")
    assert again.error is None
    assert [row[3:] for row in again.rows] == [["present", config], ["present", other]]


def test_prepare_offline_names_every_missing_and_damaged_file(
    prepare_command: Callable[..., Ended], cache: Path, server: FileServer
) -> None:
    prepare_command("big")
    (cache / "x" / "big").write_bytes(b"short")
    ended = prepare_command("--offline")
    assert isinstance(ended.error, MissingAsset)
    assert [row[3] for row in ended.rows] == ["damaged", "missing", "missing"]
    missing = [f"{cache}/vae/v/{name}: missing" for name in ("config.json", "w.bin")]
    one_line(ended.error, f"{cache}/x/big: 5 bytes", *missing, "`ditbench prepare big vae`")
    assert len(server.requests) == 1


def test_prepare_fetches_what_it_can(prepare_command: Callable[..., Ended], server: FileServer) -> None:
    del server.files["/big"]
    ended = prepare_command()
    assert isinstance(ended.error, FetchError)
    assert [row[3] for row in ended.rows] == ["missing", "fetched", "fetched"]
    one_line(ended.error, f"{server.url('/big')}: the server answers 404")


def test_prepare_refuses_an_unknown_name_before_it_fetches(
    prepare_command: Callable[..., Ended], server: FileServer
) -> None:
    ended = prepare_command("big", "sd-vae-ft-ema")
    assert (ended.out, server.requests) == ("", [])
    assert isinstance(ended.error, InputError)
    assert str(ended.error) == f"'sd-vae-ft-ema': no such asset; accepted: {', '.join(ASSETS)}"
