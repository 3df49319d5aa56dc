"""Which files of a folder are images: one rule for all that reads folders (docs/images.md has it for users).

Importing this module imports neither torch nor numpy.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import features

from bench.errors import InputError
from bench.files.names import shown, visible

# Of each, what Pillow must have been built with to read it.
OPTIONAL = {".webp": "webp", ".avif": "avif", ".jp2": "jpg_2000", ".j2k": "jpg_2000"}
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".gif",
    *(suffix for suffix, feature in OPTIONAL.items() if features.check(feature)),
)  # fmt: skip
# What archivers and file servers leave beside the files of others: resource forks, thumbnails, waste.
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
NAMED = 3  # of each kind that is passed over


@dataclass(frozen=True)
class Found:
    """The images of a folder.

    Attributes:
        files: their paths under the folder, with forward slashes, in the order of their bytes.
        folders: the folders in the folder itself that were looked into, in the same order.
        passed_over: how many other entries of which kind there are, in one line; empty if there are none.
    """

    files: tuple[str, ...]
    folders: tuple[str, ...]
    passed_over: str


@dataclass
class _PassedOver:
    """How many entries of each kind, and the names of the first."""

    counts: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    names: dict[tuple[str, str], dict[str, None]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, one: str, many: str, name: str) -> None:
        self.counts[one, many] += 1
        if len(self.names[one, many]) <= NAMED:
            self.names[one, many][name] = None

    def __str__(self) -> str:
        return "; ".join(
            f"{count:,} {one if count == 1 else many} ({_some(self.names[one, many])})"
            for (one, many), count in self.counts.items()
        )


def tell(line: str) -> None:
    """Print a line on stderr, by the first of a job's processes alone: all of them list the same images."""
    if (os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0") == "0":
        print(visible(line), file=sys.stderr, flush=True)


def find_images(root: Path, say: Callable[[str], object] = tell) -> Found:
    """Find the images of a folder and of the folders below it; none is opened. What is passed over is said in one line.

    Links to files and folders are followed; each folder is looked into once, under its own name before that of a link.

    Raises:
        InputError: a folder cannot be read, or there are images both in the folder itself and in folders below it.
    """
    try:
        found = _walk(root)
    except OSError as error:
        raise InputError(f"{error.filename or root}: cannot be read ({error.strerror or error})") from None
    loose = [name for name in found.files if "/" not in name]
    if loose and len(loose) < len(found.files):
        below = next(name for name in found.files if "/" in name)
        raise InputError(
            f"{root}: images in the folder itself ({len(loose):,}, such as {shown(loose[0])}) and in folders below it "
            f"({len(found.files) - len(loose):,}, such as {shown(below)}); accepted: all in the folder itself, or all "
            "in folders"
        )
    if found.passed_over:
        say(f"{root}: {len(found.files):,} images; passed over: {found.passed_over}")
    return found


def stamp(path: Path) -> str:
    """Size and times of a file: what tells that it was replaced, without reading it.

    The time of the last change of the inode cannot be set: a copy that keeps the modification time is told as well.
    """
    try:
        status = path.stat()
    except OSError as error:
        return f"none ({error.errno})"
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _walk(root: Path) -> Found:
    passed = _PassedOver()
    files: list[str] = []
    folders: list[str] = []
    # A link to what the folder is in would bring in the folder again, and whatever is beside it.
    seen = {_identity(folder) for folder in root.resolve().parents}
    pending, links = [""], list[str]()
    while pending or links:
        if pending:
            at = pending.pop()
        else:
            links.sort(key=os.fsencode)
            at = links.pop(0)
        identity = _identity(root / at)
        if identity in seen:
            passed.add("link to a folder that is there already", "links to folders that are there already", at)
            continue
        seen.add(identity)
        if at and "/" not in at:
            folders.append(at)
        with os.scandir(root / at) as found:
            entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
        for entry in entries:
            path = f"{at}/{entry.name}" if at else entry.name
            if _is_folder(entry):
                if entry.name.startswith("."):
                    passed.add("hidden folder", "hidden folders", path)
                elif entry.name in SYSTEM_FOLDERS:
                    passed.add("folder of a system", "folders of a system", path)
                else:
                    (links if entry.is_symlink() else pending).append(path)
            elif entry.name.startswith("."):
                passed.add("hidden file", "hidden files", path)
            elif not entry.name.lower().endswith(SUFFIXES):
                kind = Path(entry.name).suffix or entry.name
                passed.add("file that is not read as an image", "files that are not read as images", kind)
            elif _is_special(entry):
                passed.add("pipe, socket or device", "pipes, sockets or devices", path)
            else:
                files.append(path)
    return Found(tuple(sorted(files, key=os.fsencode)), tuple(sorted(folders, key=os.fsencode)), str(passed))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself; who reads it says so
            return False
        raise


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Whether reading it could wait for ever. A broken link is not special: who reads it says so."""
    if entry.is_file(follow_symlinks=False):  # known without asking the file system again
        return False
    try:
        return not stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return False


def _some(names: Iterable[str]) -> str:
    listed = [shown(name) for name in names]
    return ", ".join(listed[:NAMED]) + (", ..." if len(listed) > NAMED else "")
