"""Fetching once, from a server that breaks, refuses and is busy, onto disks that are full or not there."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from asset_files import DATA, OTHER, SHA256, files, manifest, one_line
from file_server import FileServer
from hypothesis import given, settings
from hypothesis import strategies as st

from models.files import download
from models.files.assets import ASSETS, Asset, AssetFile, MissingAsset, locate, prepare
from models.files.download import FetchError

pytest_plugins = ["asset_cache"]


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


def test_a_broken_connection_is_continued_where_it_broke(cache: Path, server: FileServer) -> None:
    server.breaks = [1_500_000, 700_001]
    seen: list[tuple[str, int, int | None]] = []
    (status,) = prepare("big", offline=False, progress=lambda *news: seen.append(news))
    assert (status.state, status.size, status.sha256) == ("fetched", len(DATA), SHA256)
    assert (cache / "x" / "big").read_bytes() == DATA
    assert server.header("Range") == [None, "bytes=1499999-", "bytes=2199999-"]
    assert {(path, total) for path, _, total in seen} == {("x/big", len(DATA))}
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1][1] == len(DATA)


def test_another_command_continues_what_one_left(cache: Path, server: FileServer) -> None:
    server.breaks = [1_000_000, 0, 0]
    with pytest.raises(FetchError) as caught:
        locate("big", offline=False)
    one_line(caught.value, server.url("/big"), "999,999 of 3,000,000 bytes", "`ditbench prepare big`")
    assert not (cache / "x" / "big").exists()
    with pytest.raises(MissingAsset):  # a beginning is not the file
        locate("big", offline=True)
    assert locate("big", offline=False).read_bytes() == DATA
    assert server.header("Range")[-1] == "bytes=999999-"


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
    assert server.header("Range") == [None if change == "no version" else "bytes=999999-"]


@pytest.mark.parametrize(("length", "ranges"), [(3_000_000, ["bytes=2999999-"]), (3_000_001, ["bytes=3000000-", None])])
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
