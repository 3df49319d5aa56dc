"""Captions in memory: of a data set of pixels, or of a file for sampling. Importing this module imports no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data.captions import told
from bench.errors import InputError
from bench.files.names import shown

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from models.conditions import Captions

NAMES = ("embeddings", "mask")
ACCEPTED = "a .npz with embeddings (K, S, D) of floats and mask (K, S) of bool"


class CaptionArrays:
    """A `CaptionBank` of embeddings (K, S, D) and masks (K, S)."""

    def __init__(
        self,
        name: str,
        embeddings: Any,
        mask: Any,
        shape: tuple[int, int] | None,
        where: str,
        order: NDArray[np.int64] | None = None,
    ) -> None:
        """`shape`: (S, D) that are needed; `where` names them in messages; `order`: as `by_turns` has it.

        Raises:
            InputError: there are no masks, they are of another size, a caption has no token, or a number is not finite.
        """
        import numpy as np

        if embeddings is None or mask is None:
            missing = "embeddings" if embeddings is None else "masks"
            raise InputError(f"{where}: no {missing}; needed: embeddings (K, S, D) and masks (K, S) of bool")
        self._embeddings, self._mask = np.ascontiguousarray(embeddings), np.ascontiguousarray(mask)
        _check(self._embeddings, self._mask, shape, where)
        self.order = order
        digest = hashlib.sha256(f"{self._embeddings.dtype} {self._embeddings.shape}".encode())
        digest.update(self._embeddings.data)
        digest.update(self._mask.data)
        self.id = f"{name}@{digest.hexdigest()[:8]}"

    def __len__(self) -> int:
        return len(self._mask)

    def take(self, indices: Tensor, device: torch.device) -> Captions:
        """As `CaptionBank.take`."""
        import torch

        from models.conditions import Captions

        chosen = indices.cpu().numpy()
        embeddings, mask = torch.from_numpy(self._embeddings[chosen]), torch.from_numpy(self._mask[chosen])
        dropped = torch.zeros(len(chosen), dtype=torch.bool, device=device)
        return Captions(embeddings.to(device).float(), mask.to(device), dropped)


def by_turns(labels: NDArray[np.integer[Any]]) -> NDArray[np.int64] | None:
    """The order (K,) in which balanced samples take captions that are sorted by class: one of each class, by turns.

    None: the labels (K,) are not sorted, and the captions are taken as they come.
    """
    import numpy as np

    if (np.diff(labels) < 0).any():
        return None
    turn = np.arange(len(labels)) - np.searchsorted(labels, labels)  # how many of its class are before it
    return np.lexsort((labels, turn))


def _check(embeddings: NDArray[Any], mask: NDArray[Any], shape: tuple[int, int] | None, where: str) -> None:
    import numpy as np

    if embeddings.ndim != 3 or embeddings.dtype.kind != "f" or not len(embeddings):
        raise InputError(f"{where}: embeddings are {embeddings.dtype} {embeddings.shape}; needed: floats (K, S, D)")
    if mask.dtype != np.bool_ or mask.shape != embeddings.shape[:2]:
        raise InputError(f"{where}: masks are {mask.dtype} {mask.shape}; needed: bool {embeddings.shape[:2]}")
    if shape is not None and embeddings.shape[1:] != shape:
        raise InputError(f"{where}: has {told(embeddings.shape[1:])}; needed: {told(shape)}")
    check_tokens(mask, where)
    finite = np.isfinite(embeddings).all(axis=(1, 2))
    if not finite.all():
        raise InputError(f"{where}: embeddings of caption {int(np.argmin(finite))} (counted from 0) are not finite")


def check_tokens(mask: NDArray[np.bool_], where: str, first: int = 0) -> None:
    """Refuse a caption without a token, to which no attention could go; `first`: the number of the first row.

    Raises:
        InputError: the first such caption.
    """
    import numpy as np

    there = mask.any(axis=1)
    if not there.all():
        number = first + int(np.argmin(there))
        raise InputError(f"{where}: caption {number} (counted from 0) has no token; accepted: at least one")


def read_captions(path: Path, shape: tuple[int, int]) -> CaptionArrays:
    """Captions of a .npz file, `embeddings` (K, S, D) of floats and `mask` (K, S) of bool.

    Raises:
        InputError: it is no such file, or not of captions of `shape`.
    """
    import zipfile
    import zlib

    import numpy as np

    from bench.data.moments import NO_NPY

    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise InputError(f"{path}: one array; accepted: {ACCEPTED}")
        with loaded:
            found = {name: loaded[name] for name in NAMES if name in loaded}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; accepted: {ACCEPTED}") from None
    except (*NO_NPY, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise InputError(f"{path}: cannot be read ({error}); accepted: {ACCEPTED}") from None
    return CaptionArrays(shown(path.stem), found.get("embeddings"), found.get("mask"), shape, str(path))
