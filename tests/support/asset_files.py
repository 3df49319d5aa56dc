"""What the tests of `models.files.assets` fetch, and what they look at afterwards."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

from models.files.assets import ASSETS, Asset, AssetFile

DATA = random.Random(0).randbytes(3_000_000)  # three blocks
OTHER = random.Random(1).randbytes(3_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
CONFIG = b'{"a": 1}'


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
