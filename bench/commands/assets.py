"""`ditbench prepare` and `ditbench doctor`: what a machine needs before jobs run on it, fetched and examined."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import InputError, RunError

if TYPE_CHECKING:
    from models.files.assets import FileStatus, Progress

# What the studies at 256 px need: both decoders of the paper, and what FID compares with which features.
DEFAULT = ("stabilityai/sd-vae-ft-ema", "stabilityai/sd-vae-ft-mse", "inception-v3-compat", "adm-imagenet-256")


def prepare(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Assets, such as DiT-XL/2-256; default: {', '.join(DEFAULT)}.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Fetch nothing; status 2 if something is missing.")
    ] = False,
) -> None:
    """Fetch autoencoders, feature extractors, reference statistics and official weights, once, and verify checksums.

    They go to $DITBENCH_CACHE, else to the user's cache folder. Interrupted, it continues where it was.
    """
    from bench.commands.text_table import print_table
    from models.files import assets

    chosen = list(dict.fromkeys(names or DEFAULT))
    for name in chosen:
        if name not in assets.ASSETS:
            raise InputError(f"{name!r}: no such asset; accepted: {', '.join(assets.ASSETS)}")
    rows: list[list[str]] = []
    failures: list[str] = []
    unready: list[str] = []
    with _progress() as progress:
        for name in chosen:
            try:
                statuses = assets.prepare(name, offline, progress)
            except assets.FetchError as error:
                statuses = assets.check(name, verify=False)
                failures.append(str(error))
            rows += [[name, *_cells(status)] for status in statuses]
            wanting = [status for status in statuses if status.state in ("missing", "damaged")]
            if wanting and offline:
                unready.append(name)
                failures += [f"{status.path}: {status.problem or status.state}" for status in wanting]
    print_table(["name", "file", "size", "state", "SHA-256"], rows, [True, True, False, True, True])
    if unready:
        raise assets.MissingAsset("; ".join([*failures, assets.how_to_get(*unready)]))
    if failures:
        raise assets.FetchError("; ".join(failures))


def doctor(
    verify: Annotated[bool, typer.Option("--verify", help="Compute the checksums of the cache's files too.")] = False,
) -> None:
    """What is ready on this machine and what to do about the rest. Nothing is changed.

    Status 1 only where something installed is broken.
    """
    from bench.commands.text_table import print_table
    from bench.doctor import examine

    findings = examine(verify)
    rows = [[finding.what, finding.state, finding.todo] for finding in findings]
    print_table(["what", "state", "what to do"], rows, [True, True, True])
    if broken := [finding.what for finding in findings if finding.broken]:
        raise RunError(
            f"{', '.join(broken)}: broken; `make install` in a new .venv installs versions that fit together"
        )


def _cells(status: FileStatus) -> list[str]:
    """File, size, state and the first digits of the checksum."""
    size = "-" if status.size is None else f"{status.size:,}"
    return [status.path.name, size, status.state, (status.sha256 or "")[:12]]


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar for each file that is fetched, on a terminal's stderr."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    from bench.commands.terminal import console
    from bench.files.names import visible

    shown = console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Bars(*columns, console=shown, disable=not shown.is_terminal) as bars:
        tasks = {}

        def show(path: str, done: int, total: int | None) -> None:
            if path not in tasks:
                tasks[path] = bars.add_task(visible(path))
            bars.update(tasks[path], completed=done, total=total)

        yield show
