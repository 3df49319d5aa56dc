"""Files that are not what was published or recorded: changed, truncated, with a flipped bit, or put there by hand."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from asset_files import DATA, OTHER, SHA256, files, manifest, one_line, published
from file_server import FileServer

from models.files.assets import DamagedAsset, check, locate, prepare
from models.files.download import FetchError

pytest_plugins = ["asset_cache"]


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


def test_another_file_of_the_same_size_is_told_by_its_time_and_a_copy_is_not(cache: Path) -> None:
    path = locate("big", offline=False)
    path.touch()
    assert locate("big", offline=True) == path
    path.write_bytes(bytes([DATA[0] ^ 1]) + DATA[1:])
    with pytest.raises(DamagedAsset) as caught:
        locate("big", offline=True)
    one_line(caught.value, f"{path}: its SHA-256 begins with", f"in manifest.json with {SHA256[:8]}")
    entries = manifest(cache)
    del entries["x/big"]["mtime_ns"]  # as the manifest was before times were recorded
    (cache / "manifest.json").write_text(json.dumps(entries))
    assert check("big", verify=False)[0].state == "present"


def test_a_flipped_bit_is_found_by_the_checksum(cache: Path) -> None:
    path = locate("big", offline=False)
    fetched = path.stat()
    path.write_bytes(bytes([DATA[0] ^ 1]) + DATA[1:])
    os.utime(path, ns=(fetched.st_atime_ns, fetched.st_mtime_ns))
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


@pytest.mark.parametrize("content", ["", "[]", '{"x/big": 1}', '{"x/big": {"size": "1", "sha256": ""}}', "\xff"])
def test_a_damaged_manifest_is_named(cache: Path, content: str) -> None:
    path = locate("big", offline=False)
    (cache / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(DamagedAsset) as caught:
        locate("big", offline=True)
    one_line(caught.value, f"{cache}/manifest.json", "delete it")
    (cache / "manifest.json").unlink()
    assert locate("big", offline=True) == path
