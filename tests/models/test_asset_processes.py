"""Fetching by several processes, and by one that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from asset_files import DATA, manifest
from file_server import FileServer

from models.files.assets import MissingAsset, locate

pytest_plugins = ["asset_cache"]

# A process of its own that knows the test's server, tries only once, and prepares what it is told to.
ELSEWHERE = """
import sys
from models.files import assets, download
download.RETRY_WAITS = ()
for name in sys.argv[2:]:
    assets.ASSETS[name] = assets.Asset("x", f"x/{name}", (assets.AssetFile(f"x/{name}", f"{sys.argv[1]}/{name}"),))
    print(*(status.state for status in assets.prepare(name, offline=False)))
"""


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
    assert server.header("Range") == [None, f"bytes={kept - 1}-"]
