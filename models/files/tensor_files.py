"""Files of tensors, ours and others': read without running anything in them, and taken for what they say they are.

Every checksum that a file carries is compared; tensors are floats whose bytes are all there, and finite.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

# The key of our metadata in a safetensors header.
HEADER = "ditbench"
# Other types are quantised or no weights: converted to floats their numbers mean something else.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
BLOCK_BYTES = 2**22


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors on the CPU, and the header's metadata; the checksum that `bench` writes is compared if it is there.

    Raises:
        ValueError: not a whole safetensors file, or other tensors than its checksum is of.
        OSError: no such file, or it cannot be read.
    """
    try:
        # By its number: safetensors takes no name that is not UTF-8.
        with path.open("rb") as opened, safe_open(f"/dev/fd/{opened.fileno()}", framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ValueError(f"not a whole safetensors file ({error})") from None
    if HEADER in metadata:
        try:
            ours = json.loads(metadata[HEADER])
        except RecursionError:
            ours = None
        if not isinstance(ours, dict) or ours.pop("sha256", None) != checksum(tensors, ours):
            raise ValueError("the checksum does not match its content")
    return tensors, metadata


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256, in hex, over metadata and the names, types, shapes and values of tensors on the CPU."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_pickle(path: Path) -> Any:
    """What `torch.save` wrote, tensors on the CPU. Only tensors, plain values and `argparse.Namespace` are unpickled.

    Raises:
        ValueError: it would run code, is not whole, or is not what its checksums are of.
        OSError: no such file, or it cannot be read.
    """
    with path.open("rb"):  # what is raised later is for what is in the file
        pass
    check_archive(path)
    try:
        with torch.serialization.safe_globals([Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles fail in any way
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise ValueError(f"refused: it would run {code[1]}; only tensors are read from pickles") from None
        raise ValueError("not a whole file of torch.save") from None


def check_archive(path: Path) -> None:
    """Compare the checksums in a file of `torch.save`, which `torch.load` does not; the format before 1.6 has none.

    Raises:
        ValueError: a record is damaged, or is compressed, which `torch.save` never does.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for record in archive.infolist():
                if record.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{record.filename} is compressed; torch.save compresses nothing")
                if record.CRC == 0:  # of an empty record, or saved without checksums (`set_crc32_options`)
                    continue
                with archive.open(record) as stream:
                    while stream.read(BLOCK_BYTES):  # zipfile compares at the end
                        pass
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise ValueError(f"not a whole file of torch.save ({error})") from None


def check_floats(tensors: Mapping[str, object]) -> None:
    """Refuse what is not a plain tensor of floats with all of its bytes in the file.

    Raises:
        ValueError: the first such, by name.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            what = str(tensor.dtype).removeprefix("torch.") if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(f"{name}: not a tensor of floats ({what})")
        if tensor.dtype not in FLOATS:
            accepted = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOATS)
            raise ValueError(f"{name}: {str(tensor.dtype).removeprefix('torch.')}; accepted: {accepted}")
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise ValueError(f"{name}: a tensor without plain values ({tensor.layout}, {tensor.device})")
        # A pickle may repeat one number over any shape, which a copy would fill memory with.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(
                f"{name}: its shape {tuple(tensor.shape)} has more numbers than the "
                f"{tensor.untyped_storage().nbytes():,} bytes that are stored"
            )


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors of floats with NaN or infinity, or numbers that are infinite as float32, which is computed with.

    Raises:
        ValueError: the first such, by name, with how many of its values.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not (finite := tensor.float().isfinite()).all():
            raise ValueError(f"{name}: {int((~finite).sum()):,} of {tensor.numel():,} values are not finite")
