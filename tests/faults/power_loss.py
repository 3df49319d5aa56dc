"""Power loss, simulated: what was not synced is dropped, or kept in part.

A recorder in the child notes at every `os.fsync` what then is on the disk for sure: a file's content, or a folder's
names. After the child was killed, `drop_unsynced` puts its folder into a state that a disk may have after power loss
at that instant, by POSIX's rules, which are harder than what ext4 and XFS do:

- a name that was made, replaced or removed since its folder was last synced may be old or new, each by itself;
- but a new folder is there as soon as something in it was synced: every journal keeps that order;
- a file's content may be that of its last sync (nothing, if there was none) or the newest; of what was appended, a part
  may be there, or zeros in its place.

Not simulated: a disk that lies about syncs, damage to what was synced, and the loss of a whole file system. Libraries
write without syncing, and all syncs of the suite are Python's `os.fsync`: so all are seen.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOG = "synced.jsonl"


def record(root: Path, shadow: Path) -> None:
    """In a child, from now on: note in `shadow`, on the same file system, what is synced below `root`.

    All that is there now counts as synced.
    """
    shadow.mkdir()
    recorder = _Recorder(shadow)
    for folder, _, files in os.walk(root):
        recorder.folder(os.open(folder, os.O_RDONLY))
        for name in files:
            file = os.open(Path(folder) / name, os.O_RDONLY)
            recorder.file(file)
            os.close(file)
    os.fsync = recorder.fsync


class _Recorder:
    def __init__(self, shadow: Path) -> None:
        self._shadow = shadow
        self._log = os.open(shadow / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._log_folder = os.open(shadow, os.O_RDONLY)
        self._copies = 0

    def fsync(self, file: Any) -> None:
        number = file if isinstance(file, int) else file.fileno()
        if stat.S_ISDIR(os.fstat(number).st_mode):
            self.folder(os.dup(number))  # kept open: its inode's number must not be another folder's
        else:
            self.file(number)

    def folder(self, number: int) -> None:
        names: dict[str, int] = {}
        with os.scandir(f"/proc/self/fd/{number}") as entries:
            for entry in entries:
                names[entry.name] = entry.inode()
                if entry.is_file(follow_symlinks=False):
                    self._pin(entry.path, entry.inode())
        self._note({"folder": os.fstat(number).st_ino, "names": names})

    def file(self, number: int) -> None:
        path, inode = f"/proc/self/fd/{number}", os.fstat(number).st_ino
        self._pin(path, inode)
        self._copies += 1
        copy = self._shadow / f"content-{os.getpid()}-{self._copies}"
        shutil.copyfile(path, copy)
        self._note({"file": inode, "content": copy.name})

    def _pin(self, path: str, inode: int) -> None:
        """A second name keeps a removed file's inode from being used again."""
        pin = self._shadow / f"pin-{inode}"
        if not pin.exists():
            # With a folder given, Python follows the link in /proc to the file.
            os.link(path, pin, src_dir_fd=self._log_folder, follow_symlinks=True)

    def _note(self, row: dict[str, Any]) -> None:
        os.write(self._log, (json.dumps(row) + "\n").encode())


@dataclass
class _Disk:
    """Folders' names and files' contents, by inode."""

    folders: dict[int, dict[str, int]] = field(default_factory=dict)
    files: dict[int, bytes] = field(default_factory=dict)


def drop_unsynced(root: Path, shadow: Path, chance: random.Random, elsewhere: str | None) -> str:
    """Put `root` into a state after power loss: in every other case all that was not synced is gone. Says what was.

    The folder `elsewhere` in it is another machine's, and stays.
    """
    kept = chance.choice([0.0, 0.5])
    synced, live = _synced(shadow), _live(root, shadow)
    after = root.with_name(f"{root.name}.after")
    live.folders[root.stat().st_ino].pop(elsewhere or "", None)
    synced.folders[root.stat().st_ino].pop(elsewhere or "", None)
    dropped = _build(after, root.stat().st_ino, synced, live, chance, kept)
    if elsewhere:
        (root / elsewhere).rename(after / elsewhere)
    shutil.rmtree(root)
    after.rename(root)
    shutil.rmtree(shadow)
    return f"{dropped} un-synced changes lost, {'none' if kept == 0 else 'others'} kept"


def _synced(shadow: Path) -> _Disk:
    disk = _Disk()
    for line in (shadow / LOG).read_text().splitlines():
        row = json.loads(line)
        if "folder" in row:
            disk.folders[row["folder"]] = row["names"]
        else:
            disk.files[row["file"]] = (shadow / row["content"]).read_bytes()
    return disk


def _live(root: Path, shadow: Path) -> _Disk:
    disk = _Disk()
    for folder, _, files in os.walk(root):
        disk.folders[Path(folder).stat().st_ino] = {entry.name: entry.inode() for entry in os.scandir(folder)}
        for name in files:
            path = Path(folder) / name
            disk.files[path.stat().st_ino] = path.read_bytes()
    for pin in shadow.glob("pin-*"):
        disk.files.setdefault(pin.stat().st_ino, pin.read_bytes())
    return disk


def _build(out: Path, inode: int, synced: _Disk, live: _Disk, chance: random.Random, kept: float) -> int:
    """Write one folder as it may be found; returns how many changes were lost."""
    out.mkdir()
    before, now = synced.folders.get(inode, {}), live.folders.get(inode, {})
    dropped = 0
    for name in sorted({*before, *now}):
        entry = now.get(name)
        is_held = before.get(name) is None and _holds_synced(entry, synced, live)
        if before.get(name) != entry and not is_held and chance.random() >= kept:
            entry = before.get(name)
            dropped += 1
        if entry is None:
            continue
        if entry in live.folders or entry in synced.folders:
            dropped += _build(out / name, entry, synced, live, chance, kept)
            continue
        old, new = synced.files.get(entry, b""), live.files.get(entry, b"")
        found = _content(old, new, chance, kept)
        dropped += found != new
        (out / name).write_bytes(found)
    return dropped


def _holds_synced(inode: int | None, synced: _Disk, live: _Disk) -> bool:
    """Whether something in a folder, at any depth, was synced."""
    if inode is None or inode not in live.folders:
        return False
    inside = live.folders[inode].values()
    return inode in synced.folders or any(i in synced.files or _holds_synced(i, synced, live) for i in inside)


def _content(old: bytes, new: bytes, chance: random.Random, kept: float) -> bytes:
    if old == new or chance.random() < kept / 2:
        return new
    if kept == 0 or not new.startswith(old):
        return old
    part = new[: chance.randint(len(old), len(new))]
    return part if chance.random() < 0.5 else part.ljust(len(new), b"\0")
