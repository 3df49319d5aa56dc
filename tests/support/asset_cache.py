"""A pytest plugin: an empty cache, whose assets come from a server on the loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from asset_files import CONFIG, DATA, OTHER
from file_server import FileServer

from models.files import download
from models.files.assets import ASSETS, Asset, AssetFile


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
