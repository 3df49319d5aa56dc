"""What an asset's name means: where the cache is, which files it has, and names that nothing has."""

from __future__ import annotations

from pathlib import Path

import pytest
from asset_files import CONFIG, OTHER, files, manifest, one_line
from file_server import FileServer

from models.files import assets
from models.files.assets import ASSETS, MissingAsset, locate, prepare

pytest_plugins = ["asset_cache"]


def test_an_asset_of_several_files_is_their_folder(cache: Path) -> None:
    folder = locate("vae", offline=False)
    assert folder == cache / "vae" / "v"
    assert {path: (folder / path).read_bytes() for path in files(folder)} == {"config.json": CONFIG, "w.bin": OTHER}
    assert set(manifest(cache)) == {"vae/v/config.json", "vae/v/w.bin"}
    (folder / "w.bin").unlink()
    with pytest.raises(MissingAsset, match=r"w\.bin: missing"):
        locate("vae", offline=True)


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
        assert (asset.path == f"vae/{name}") == (asset.what == "autoencoder")
        assert (asset.path == f"text/{name}") == (asset.what == "text encoder")
        assert (asset.what in ("autoencoder", "text encoder")) == (len(asset.files) > 1)
