"""Data sets: index -> (x, label), what is known of one before it is loaded, and what its samples are compared with.

Read `digits.py`; one of your own is named in a recipe as `data.name: my_file:Name`. A name that is neither is a folder
of latents that `ditbench encode` made. Importing this package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from models.parts import Seam

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bench.score.reference import Reference


class DatasetFacts(NamedTuple):
    """What recipes and plans are checked against.

    `shape` is (C, *spatial) as the model sees it, `image_shape` (C, H, W) of a sample as it is stored; `latents` need
    an autoencoder between the two, and a reference that the recipe names.
    """

    length: int
    shape: tuple[int, ...]
    image_shape: tuple[int, int, int]
    num_classes: int
    latents: bool = False


class Dataset(Protocol):
    """Training examples scaled to the model's range."""

    num_classes: int

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, share: slice, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """x (N, C, *spatial) float32 and labels (N,) int64 on the data set's device, for `indices[share]`.

        Args:
            indices: of the whole batch, (B,) int64 on the CPU.
            share: the rows that this rank computes.
            random: the step's generator; what is random is drawn from it for the whole batch.
        """
        ...

    def read_ahead(self, indices: Tensor) -> None:
        """Begin to read examples, (N,) int64, that `batch` will be asked for soon."""
        ...


class DataPart(Protocol):
    """A data set as a recipe names it; `options`: a frozen dataclass, the keys of `data` beside `name`."""

    options: type

    def facts(self, name: str, options: Any) -> DatasetFacts:
        """What is known without reading the data; raises ValueError("key: what is wrong")."""
        ...

    def load(self, name: str, options: Any, device: torch.device) -> Dataset:
        """The data; raises InputError where they are not there, damaged, or not those that the options say."""
        ...

    def reference(self, name: str, options: Any) -> Reference:
        """What samples are compared with: its own images (not asked for latents)."""
        ...

    def check_ready(self, name: str, options: Any) -> None:
        """Refuse, before it costs anything, what `load` would refuse."""
        ...


DATA = Seam(
    noun="data set",
    key="data.name",
    builtin={
        "digits": "bench.data.digits:DIGITS",
        "imagenet-256-latents": "bench.data.latent_sets:IMAGENET_256",
        "imagenet-512-latents": "bench.data.latent_sets:IMAGENET_512",
        "latents": "bench.data.latent_sets:OWN",
    },
    contract=("options", "facts", "load", "reference", "check_ready"),
)


def data_part(name: str) -> Any:
    """The data set of a name: a built-in, a dotted path, or else a folder of latents of one's own.

    Raises:
        ValueError: a dotted path that is no data set.
    """
    return DATA.find(name if name in DATA.builtin or ":" in name else "latents")
