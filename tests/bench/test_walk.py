"""Which files of a folder are images: one rule for whatever reads folders, and nothing left out without a word."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from photos import noise
from PIL import Image

from bench.data.image_folder import list_images
from bench.data.images import open_images
from bench.data.walk import find_images, stamp
from bench.errors import InputError

NAMES = [f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(3)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two folders of three images."""
    for name in NAMES:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(8, 8)).save(path)
    return tmp_path / "photos"


def found(root: Path) -> tuple[list[str], str]:
    """The images that every reader of a folder finds, and what it says to have passed over."""
    said: list[str] = []
    files = find_images(root, said.append).files
    assert sorted(list_images(root).paths) == sorted(files)
    assert len(open_images(root)) == len(files)
    return list(files), " ".join(said)


def test_a_folder_of_images_alone_is_found_without_a_word(root: Path) -> None:
    assert found(root) == (NAMES, "")


def to_itself(root: Path) -> None:
    (root / "cat" / "again").symlink_to("..")
    (root / "all").symlink_to(root)


def to_a_folder_above(root: Path) -> None:
    """Links to what the folder is in would bring in the folder again, and what is beside it."""
    (root.parent / "others").mkdir()
    Image.fromarray(noise(8, 8)).save(root.parent / "others" / "0.png")
    (root / "dog" / "up").symlink_to("../..")


def before_its_own_name(root: Path) -> None:
    (root / "animals").symlink_to("cat")


@pytest.mark.parametrize(
    ("link", "passed"),
    [
        (to_itself, "2 links to folders that are there already (all, cat/again)"),
        (to_a_folder_above, "1 link to a folder that is there already (dog/up)"),
        (before_its_own_name, "1 link to a folder that is there already (animals)"),
    ],
)
def test_a_link_to_what_is_there_multiplies_nothing(root: Path, link: Callable[[Path], None], passed: str) -> None:
    link(root)
    assert found(root) == (NAMES, f"{root}: 6 images; passed over: {passed}")


def test_links_to_folders_and_files_elsewhere_are_followed(root: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    (root / "dog").rename(store)
    (root / "dog").symlink_to(store)
    (root / "cat" / "0.png").rename(tmp_path / "blob")
    (root / "cat" / "0.png").symlink_to(tmp_path / "blob")
    assert found(root) == (NAMES, "")


def test_what_systems_leave_behind_is_passed_over_and_counted(root: Path) -> None:
    for folder in (".thumbnails", "__MACOSX", "cat/@eaDir"):
        (root / folder).mkdir()
        Image.fromarray(noise(8, 8)).save(root / folder / "0.png")
    for name in ("cat/._0.png", "cat/.DS_Store", ".hidden.jpg"):
        (root / name).write_bytes(b"x")
    for name in ("Thumbs.db", "labels.csv", "dog/readme", "dog/desktop.ini", "dog/0.heic"):
        (root / name).write_bytes(b"x")
    os.mkfifo(root / "dog" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "dog" / "socket.png"))
        files, said = found(root)
    assert files == NAMES
    counts = ("1 hidden folder (.thumbnails)", "2 folders of a system (", "3 hidden files (", "2 pipes, sockets")
    assert all(count in said for count in counts)
    assert "5 files that are not read as images (" in said
    assert len(said.splitlines()) == 1


def test_common_endings_are_read_whatever_their_case(root: Path) -> None:
    image = Image.fromarray(noise(8, 8))
    names = ["a.JPEG", "b.jfif", "c.jpe", "d.Jpg", "e.BMP", "f.webp", "g.tiff", "h.ppm"]
    for name in names:
        image.save(root / "cat" / name, format={"jfif": "JPEG", "jpe": "JPEG"}.get(name[2:]))
    assert found(root) == (NAMES[:3] + [f"cat/{name}" for name in names] + NAMES[3:], "")
    for name in ("i.gif", "j.avif", "k.jp2"):  # no samples: encoders change pixels or modes; but images of a class
        image.save(root / "cat" / name)
    assert list(list_images(root).paths)[11:14] == ["cat/i.gif", "cat/j.avif", "cat/k.jp2"]


def test_a_format_that_pillow_lacks_is_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise(8, 8)).save(root / "cat" / "0.webp")
    monkeypatch.setattr("bench.data.walk.SUFFIXES", (".png",))
    assert found(root) == (NAMES, f"{root}: 6 images; passed over: 1 file that is not read as an image (.webp)")


@pytest.mark.parametrize("read", [list_images, open_images])
def test_images_beside_folders_of_images_are_refused(root: Path, read: Callable[[Path], object]) -> None:
    Image.fromarray(noise(8, 8)).save(root / "grid.png")
    with pytest.raises(InputError, match=r"photos: images in the folder itself \(1, such as grid\.png\) and in .* \(6"):
        read(root)


def test_a_broken_link_is_an_image_that_cannot_be_read(root: Path) -> None:
    (root / "cat" / "gone.png").symlink_to("nowhere")
    (root / "cat" / "itself.png").symlink_to("itself.png")
    assert {"cat/gone.png", "cat/itself.png"} < set(list_images(root).paths)
    with pytest.raises(InputError, match=r"gone\.png: cannot be read"):
        open_images(root)


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scandir(path: Path) -> object:
        if path.name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    listed = os.scandir
    monkeypatch.setattr("os.scandir", scandir)  # root may read everything
    with pytest.raises(InputError, match=r"dog: cannot be read \(Permission denied\)"):
        list_images(root)


def test_names_that_are_not_utf8_are_found_in_the_order_of_their_bytes(root: Path) -> None:
    for name in (b"\xff.png", "\N{GRINNING FACE}.png".encode(), "\u00e9.png".encode(), b"\xe9.png"):
        (root / "cat" / "0.png").link_to if False else os.link(
            root / "cat" / "0.png", bytes(root / "cat") + b"/" + name
        )
    files, _ = found(root)
    assert [os.fsencode(name) for name in files[:7]] == [
        b"cat/0.png", b"cat/1.png", b"cat/2.png", b"cat/\xc3\xa9.png", b"cat/\xe9.png",
        "cat/\N{GRINNING FACE}.png".encode(), b"cat/\xff.png",
    ]  # fmt: skip


def test_a_stamp_tells_a_replaced_file(root: Path) -> None:
    path = root / "cat" / "0.png"
    before, times = stamp(path), path.stat()
    assert stamp(path) == before
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a copy that keeps the time
    assert stamp(path) != before
    assert path.stat().st_size == times.st_size
