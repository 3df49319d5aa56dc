"""`ditbench prepare`: what it prints, fetches and refuses."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from asset_files import CONFIG, OTHER, SHA256, one_line
from file_server import FileServer
from typer.testing import CliRunner

from bench.commands import assets
from bench.errors import InputError
from models.files.assets import ASSETS, MissingAsset
from models.files.download import FetchError

pytest_plugins = ["asset_cache"]


@dataclass(frozen=True)
class Ended:
    """What a command printed, and the error it ended with: `ditbench.main` makes a line and status 2 of it."""

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
    app.command()(assets.prepare)
    monkeypatch.setattr(assets, "DEFAULT", ("big", "vae"))

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
