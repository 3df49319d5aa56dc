"""Reading archives of arrays that may be damaged, or made to take all memory."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

# Deflate makes nothing more than this much smaller (zlib's documentation): what claims more has not got it.
MOST_DEFLATED = 1032
DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, TypeError, AttributeError, LookupError),
    *(NotImplementedError, RuntimeError, SyntaxError, RecursionError, MemoryError),
)


def read_npz(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """All arrays of a .npz by name, their checksums compared, and the archive's comment.

    Raises:
        ValueError: it is not a whole one, or declares more than it holds, which takes no memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                _refuse_too_large(archive, member)
            comment = archive.comment.decode(errors="replace")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}, comment
    except DAMAGED as error:
        raise ValueError(f"not a whole .npz file ({error})") from error


def _refuse_too_large(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Compare what an array's header says with what is there, before memory is taken for it.

    Raises:
        ValueError: it is not that much, or no array.
    """
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        held = member.file_size - file.tell()
    if dtype.itemsize * math.prod(shape) != held or held > MOST_DEFLATED * member.compress_size:
        raise ValueError(f"{member.filename}: {held} bytes for the shape {shape} of {dtype}")
