"""Images on disk as one uint8 array (N, C, H, W), whatever holds them: .npy, an ADM .npz, or a folder; clips,
(N, C, T, H, W), as a .npy or .npz.

Arrays are memory-mapped where they can be, also inside a .npz, so that 50,000 images cost no memory. Importing this
module does not import torch.
"""

from __future__ import annotations

import hashlib
import math
import os
import tokenize
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.image_file import EXACT, UnreadableImage, decode, read_header
from bench.data.pixels import layout
from bench.data.walk import SUFFIXES, find_images
from bench.errors import InputError
from bench.files.atomic import replace

if TYPE_CHECKING:
    from torch import Tensor

DIMENSIONS = (4, 5)  # of an array of images, of clips
IN_NPZ = "arr_0 uint8 (N, H, W, 1 or 3), or clips (N, T, H, W, 1 or 3)"
CHUNK_BYTES = 2**26
LOCAL_HEADER_BYTES = 30  # of a zip member, before its name and its extra field (APPNOTE 6.3, section 4.3.7)
# Deflate makes nothing more than this much smaller (zlib's documentation): what claims more has not got it.
MOST_DEFLATED = 1032
ZIP_PROBLEMS = (
    *(zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, NotImplementedError, RuntimeError),
    *(MemoryError, KeyError),  # of Python's parser, by a header of nested brackets; a method of compression of others'
)


class Images(ABC):
    """uint8 images, or clips, all of one size.

    Attributes:
        shape: (N, C, H, W), of clips (N, C, T, H, W); C is 1 or 3.
    """

    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def pixels(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Images start .. stop - 1 as a slice takes them: (n, *shape[1:]) uint8, contiguous."""

    def batch(self, start: int, stop: int) -> Tensor:
        """The same as a torch tensor of its own memory."""
        import torch

        return torch.from_numpy(self.pixels(start, stop))

    def chunks(self) -> Iterator[NDArray[np.uint8]]:
        """All images in order, (n, *shape[1:]) uint8 of at most `CHUNK_BYTES`, one image at least."""
        size = max(1, CHUNK_BYTES // int(np.prod(self.shape[1:])))
        for start in range(0, len(self), size):
            yield self.pixels(start, start + size)

    def content_hash(self) -> str:
        """SHA-256, in hex, of type, shape and pixels in the order of `shape`: the same in every container."""
        digest = hashlib.sha256(f"uint8 {self.shape}".encode())
        for chunk in self.chunks():
            digest.update(chunk.data)
        return digest.hexdigest()


class ArrayImages(Images):
    """Images or clips of an array, in memory or mapped; with `channels_last`, (N, H, W, C) or (N, T, H, W, C)."""

    def __init__(self, array: NDArray[np.uint8], channels_last: bool = False) -> None:
        self._array = np.moveaxis(array, -1, 1) if channels_last else array
        self.shape = self._array.shape

    def pixels(self, start: int, stop: int) -> NDArray[np.uint8]:
        return np.array(self._array[start:stop], order="C")


class FolderImages(Images):
    """Image files. All grey: C = 1; else C = 3, where grey images among them are repeated."""

    def __init__(self, paths: list[Path], shape: tuple[int, ...]) -> None:
        self._paths = paths
        self.shape = shape

    def pixels(self, start: int, stop: int) -> NDArray[np.uint8]:
        paths = self._paths[start:stop]
        pixels = np.empty((len(paths), *self.shape[1:]), dtype=np.uint8)
        for row, path in zip(pixels, paths, strict=True):
            row[:] = _read_image(path, self.shape[1])
        return pixels


def open_images(path: Path) -> Images:
    """Open a .npy (uint8, N, C, H, W), an ADM .npz (arr_0: uint8, N, H, W, C), or a folder of images.

    Clips are a .npy (N, C, T, H, W) or a .npz (N, T, H, W, C).

    Raises:
        InputError: it is none of them, or something in it is not as it must be.
    """
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix == ".npy":
        return _open_npy(path)
    if path.suffix == ".npz":
        arrays = npz_arrays(path)
        images = npz_images(path, arrays)
        if images is None:
            held = ", ".join(str(array) for array in arrays.values()) or "nothing"
            raise InputError(f"{path}: no images; it has {held}; accepted: {IN_NPZ}")
        return images
    raise InputError(f"{path}: not images; accepted: .npy, .npz, a folder of {' '.join(SUFFIXES)}")


def _open_npy(path: Path) -> Images:
    try:
        with path.open("rb") as file:
            dtype, shape, _ = _read_array_header(file)
        if dtype != np.uint8 or len(shape) not in DIMENSIONS or shape[1] not in (1, 3) or 0 in shape:
            accepted = "uint8 (N, C, H, W) with C 1 or 3, not empty; of clips (N, C, T, H, W)"
            raise InputError(f"{path}: {dtype} {shape}; accepted: {accepted}")
        if math.prod(shape) > path.stat().st_size:
            raise ValueError(f"{math.prod(shape):,} bytes by its shape, {path.stat().st_size:,} in the file")
        return ArrayImages(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as .npy ({error})") from None


@dataclass(frozen=True)
class NpzArray:
    """An array of a .npz, known by its header."""

    path: Path
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    fortran_order: bool

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {self.shape}"

    def read(self) -> NDArray:
        """The whole array in memory, its checksum compared.

        Raises:
            InputError: the file is damaged, cannot hold as much as the array's shape says, or memory cannot.
        """
        try:
            with zipfile.ZipFile(self.path) as archive:
                member = self._checked(archive)
                size, memory = member.file_size, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
                if size > memory:
                    raise InputError(
                        f"{self.path}: {self}: {size:,} bytes, and this machine's memory is {memory:,}; accepted: not "
                        "compressed, then it is read from where it is"
                    )
                with archive.open(member) as file:
                    array = np.lib.format.read_array(file, allow_pickle=False)
                    file.read(1)  # zipfile compares at the end, which decompression may not have come to
                    return array
        except ZIP_PROBLEMS as error:
            raise InputError(f"{self.path}: {self.name}: cannot be read ({error})") from None

    def map(self) -> NDArray:
        """The array, memory-mapped if it is stored as it is, otherwise read; its checksum is compared either way.

        Raises:
            InputError: the file is damaged.
        """
        try:
            with zipfile.ZipFile(self.path) as archive:
                member = self._checked(archive)
                if member.compress_type != zipfile.ZIP_STORED:
                    return self.read()
                with archive.open(member) as file:
                    while file.read(CHUNK_BYTES):  # zipfile compares at the end
                        pass
            with self.path.open("rb") as file:
                # The local header's extra field differs from the one in the central directory: read its length here.
                file.seek(member.header_offset)
                header = file.read(LOCAL_HEADER_BYTES)
                lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
                file.seek(member.header_offset + LOCAL_HEADER_BYTES + lengths)
                _read_array_header(file)
                start = file.tell()
            order = "F" if self.fortran_order else "C"
            return np.memmap(self.path, self.dtype, mode="r", offset=start, shape=self.shape, order=order)
        except ZIP_PROBLEMS as error:
            raise InputError(f"{self.path}: {self.name}: cannot be read ({error})") from None

    def _checked(self, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
        """The array's member of the archive, if it can hold what the shape says: known before memory is taken for it.

        Raises:
            ValueError: it cannot.
        """
        member = archive.getinfo(f"{self.name}.npy")
        with archive.open(member) as file:
            _read_array_header(file)
            held = member.file_size - file.tell()
        most = member.compress_size * {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: MOST_DEFLATED}[member.compress_type]
        if held != self.dtype.itemsize * math.prod(self.shape) or held > most:
            raise ValueError(f"{min(held, most)} bytes for {self.shape}")
        return member


def npz_arrays(path: Path) -> dict[str, NpzArray]:
    """The arrays of a .npz by name; only their headers are read.

    Raises:
        InputError: it is not a .npz, or damaged.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            for member in [member for member in members if member.endswith(".npy")]:
                with archive.open(member) as file:
                    name = member.removesuffix(".npy")
                    arrays[name] = NpzArray(path, name, *_read_array_header(file))
            if members and not arrays:
                raise ValueError(f"no array in it, but {members[0]}")
    except ZIP_PROBLEMS as error:
        raise InputError(f"{path}: cannot be read as .npz ({error})") from None
    return arrays


def npz_images(path: Path, arrays: dict[str, NpzArray]) -> Images | None:
    """The images among a .npz's arrays; None if there are none.

    They are arr_0; without an arr_0, the one array of uint8 with four dimensions, or five of clips, whatever its name.
    Labels, whatever their form, are not read: no score needs them.

    Raises:
        InputError: arr_0 is no array of images, several arrays could be the images, or one cannot be read.
    """
    candidates = [array for array in arrays.values() if array.dtype == np.uint8 and len(array.shape) in DIMENSIONS]
    if "arr_0" in arrays:
        candidates = [arrays["arr_0"]]
    if not candidates:
        return None
    if len(candidates) > 1:
        raise InputError(f"{path}: {', '.join(map(str, candidates))} could all be the images; name one arr_0")
    (images,) = candidates
    is_array = images.dtype == np.uint8 and len(images.shape) in DIMENSIONS
    if not is_array or images.shape[-1] not in (1, 3) or 0 in images.shape:
        accepted = "uint8 (N, H, W, C) with C 1 or 3, not empty; of clips (N, T, H, W, C)"
        raise InputError(f"{path}: {images}; accepted: {accepted}")
    return ArrayImages(images.map(), channels_last=True)


def _read_array_header(file: IO[bytes]) -> tuple[np.dtype, tuple[int, ...], bool]:
    """dtype, shape and Fortran order of a .npy; the file is left where the data start."""
    version = np.lib.format.read_magic(file)
    try:
        if version == (1, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"version {version} of the .npy format")
    except (tokenize.TokenError, RecursionError, TypeError, LookupError):  # numpy lets them pass
        raise ValueError("its header is damaged") from None
    if any(size < 0 for size in shape):
        raise ValueError(f"the shape {shape}")
    return dtype, shape, fortran_order


def _open_folder(folder: Path) -> Images:
    found = find_images(folder)
    if not found.files:
        raise InputError(f"{folder}: no images in it; accepted: {' '.join(SUFFIXES)}")
    paths = [folder / name for name in found.files]
    modes, size = set(), None
    for path in paths:
        mode, (width, height) = _header(path)
        modes.add(mode)
        size = size or (width, height)
        if size != (width, height):
            theirs = f"{width} x {height} pixels, and {found.files[0]} {size[0]} x {size[1]}"
            raise InputError(f"{path}: {theirs}; accepted: images of one size")
    assert size is not None
    return FolderImages(paths, (len(paths), 1 if modes == {"L"} else 3, size[1], size[0]))


def _header(path: Path) -> tuple[str, tuple[int, int]]:
    try:
        return read_header(path, EXACT)
    except UnreadableImage as error:
        raise error.at(path) from None


def _read_image(path: Path, channels: int) -> NDArray[np.uint8]:
    """One image file as (C, H, W); grey is repeated where `channels` is 3."""
    try:
        pixels = np.asarray(decode(path, EXACT, "L" if channels == 1 else "RGB"))
    except UnreadableImage as error:
        raise error.at(path) from None
    return pixels.reshape(*pixels.shape[:2], channels).transpose(2, 0, 1)


def write_npz(images: Images, path: Path, labels: NDArray[np.int64] | None = None) -> None:
    """Write an ADM .npz: arr_0 uint8 (N, H, W, C), of clips (N, T, H, W, C), and arr_1 int64 (N,) if there are labels.

    Nothing is compressed; the same images and labels give the same bytes.

    Raises:
        ValueError: labels of another number.
        RunError: the file could not be written; the old one stays.
    """
    if labels is not None and labels.shape != images.shape[:1]:
        raise ValueError(f"labels: shape {labels.shape}, expected {images.shape[:1]}")
    num, channels, *sides = images.shape

    def write(aside: Path) -> None:
        with zipfile.ZipFile(aside, "w") as archive:
            with archive.open("arr_0.npy", "w", force_zip64=True) as member:
                header = {"descr": "|u1", "fortran_order": False, "shape": (num, *sides, channels)}
                np.lib.format.write_array_header_1_0(member, header)
                for chunk in images.chunks():
                    member.write(np.ascontiguousarray(np.moveaxis(chunk, 1, -1)).data)
            if labels is not None:
                with archive.open("arr_1.npy", "w") as member:
                    np.lib.format.write_array(member, labels.astype("<i8"), allow_pickle=False)

    replace(path, write)


def write_pngs(images: Images, folder: Path) -> None:
    """Write 000000.png, 000001.png, ...; run again after an interruption, it writes what is missing or cannot be read.

    Raises:
        InputError: they are clips, or the folder has other images, which would be taken for these.
        RunError: a file could not be written; finished ones stay.
    """
    if len(images.shape) != 4:
        shape = images.shape[1:]
        raise InputError(f"{folder}: clips {shape} {layout(shape)} are no PNG files; accepted for clips: FILE.npz")
    digits = max(6, len(str(len(images) - 1)))
    names = [f"{index:0{digits}d}.png" for index in range(len(images))]
    strangers = set(find_images(folder, say=lambda line: None).files if folder.is_dir() else ()) - set(names)
    if strangers:
        raise InputError(f"{folder}: has other images, such as {min(strangers)}; give a folder of its own")
    every = (pixels for chunk in images.chunks() for pixels in chunk)
    for name, pixels in zip(names, every, strict=True):
        if not ((folder / name).exists() and _holds(folder / name, pixels)):
            _write_png(folder / name, pixels)


def _holds(path: Path, pixels: NDArray[np.uint8]) -> bool:
    """Whether a file is this image (C, H, W) and whole.

    Raises:
        InputError: it is a whole image, but another one.
    """
    try:
        found = _read_image(path, len(pixels))
    except InputError:
        return False
    if not np.array_equal(found, pixels):
        raise InputError(f"{path}: has another image than the one to be written; give a folder of its own")
    return True


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    replace(path, lambda aside: image.save(aside, format="PNG"))
