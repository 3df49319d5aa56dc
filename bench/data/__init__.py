"""Data sets: index -> (x, label), what is known of one before it is loaded, and what its samples are compared with.

One of your own is named in a recipe as `data.name: my_file:Name`; if it is images in memory, it is a `PixelDataset`, of
which `digits.py` is an example. A name that is neither is a folder of latents that `ditbench encode` made. Importing
this package imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bench.data.captions import told
from bench.errors import InputError
from models.parts import NoOptions, Seam

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from bench.data.captions import CaptionBank
    from bench.data.pixels import PixelExamples
    from bench.score.reference import Reference


class DatasetFacts(NamedTuple):
    """What recipes and plans are checked against.

    `shape` is (C, *spatial) as the model sees it, `image_shape` (C, H, W) of a sample as it is stored, of a clip
    (C, T, H, W); `latents` need an autoencoder between the two, and a reference that the recipe names; `normalized`:
    the model sees them per channel less the data set's mean and divided by its standard deviation
    (`bench.data.normalization`).
    `caption_shape`: (S, D) of its captions, tokens and channels of each, which a model is told instead of labels.
    """

    length: int
    shape: tuple[int, ...]
    image_shape: tuple[int, ...]
    num_classes: int
    latents: bool = False
    normalized: bool = False
    caption_shape: tuple[int, int] | None = None


class Dataset(Protocol):
    """Training examples scaled to the model's range."""

    num_classes: int

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, share: slice, random: torch.Generator) -> tuple[Tensor, Any]:
        """x (N, C, *spatial) float32 and labels (N,) int64, or captions, on the data set's device, for
        `indices[share]`.

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
    """A data set as a recipe names it; `options`: a frozen dataclass, the keys of `data` beside `name`.

    Options that decide no result, such as a path, are `dataclasses.field(metadata=bench.schema.NO_RESULT)`: they are no
    part of a recipe's id.
    """

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


class CaptionedPart(DataPart, Protocol):
    """A data set whose facts have a `caption_shape`."""

    def caption_bank(self, name: str, options: Any) -> CaptionBank:
        """Its captions, which samples are made of; raises InputError where they are not there, or damaged."""
        ...


class PixelDataset:
    """A data set of images, or clips, in memory: `facts` and `images` are all that one of your own has to say, and
    `captions` if its facts have a `caption_shape`."""

    options: type = NoOptions

    def facts(self, name: str, options: Any) -> DatasetFacts:
        """As `DataPart.facts`; `shape` is `image_shape`, with 1 or 3 channels."""
        raise NotImplementedError

    def images(self, name: str, options: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """All images (N, *image_shape) uint8 and labels (N,); raises InputError where they cannot be read."""
        raise NotImplementedError

    def captions(self, name: str, options: Any) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
        """Of each image its caption: embeddings (N, S, D), and masks (N, S), whether there is a token."""
        raise NotImplementedError

    def load(self, name: str, options: Any, device: torch.device) -> PixelExamples:
        """On the device; 0 .. 255 becomes -1 .. 1."""
        from bench.data.pixels import PixelExamples

        pixels, labels = self.checked_images(name, options)
        facts = self.facts(name, options)
        captions = None if facts.caption_shape is None else self.caption_bank(name, options)
        return PixelExamples(pixels, labels, facts.num_classes, device, captions=captions)

    def caption_bank(self, name: str, options: Any) -> CaptionBank:
        """`captions`, if they are what `facts` says.

        Raises:
            InputError: they are not, or cannot be read.
        """
        from bench.data.captions.arrays import CaptionArrays, by_turns

        facts, where = self.facts(name, options), f"data.name: {name}: its captions"
        try:
            embeddings, mask = self.captions(name, options)
        except NotImplementedError:
            raise InputError(f"{where}: none, by its facts {told(facts.caption_shape)}; needed: captions()") from None
        except OSError as error:
            raise InputError(f"{where} cannot be read ({error})") from None
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: no embeddings and masks ({error})") from None
        order = by_turns(self.checked_images(name, options)[1])
        bank = CaptionArrays(self.title(name, options), embeddings, mask, facts.caption_shape, where, order)
        if len(bank) != facts.length:
            raise InputError(f"{where}: {len(bank)}, of {facts.length} images; needed: one an image")
        return bank

    def reference(self, name: str, options: Any) -> Reference:
        """All images, named by the data set, their number and a hash of their pixels."""
        from bench.data.images import ArrayImages
        from bench.score.reference import Reference

        pixels, _ = self.checked_images(name, options)
        title = self.title(name, options)
        digest = hashlib.sha256(pixels.data).hexdigest()[:8]
        return Reference(title, f"{title}-{len(pixels)}-{digest}", ArrayImages(pixels), {})

    def of_classes(self, name: str, options: Any, wanted: Sequence[int]) -> NDArray[np.uint8]:
        """An image of each class `wanted`, (N, *image_shape): the first of it, the second where it comes again, ...

        Raises:
            InputError: a class has too few, or the images cannot be read.
        """
        pixels, labels = self.checked_images(name, options)
        return pixels[first_of_classes(labels.tolist(), wanted)]

    def check_ready(self, name: str, options: Any) -> None:
        self.checked_images(name, options)
        if self.facts(name, options).caption_shape is not None:
            self.caption_bank(name, options)

    def title(self, name: str, options: Any) -> str:
        """What its reference is called."""
        return name.rpartition(":")[2]

    def checked_images(self, name: str, options: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """`images`, if they are what `facts` says.

        Raises:
            InputError: they are not, or cannot be read.
        """
        import numpy as np

        facts = self.facts(name, options)
        try:
            pixels, labels = self.images(name, options)
        except OSError as error:
            raise InputError(f"data.name: {name}: its images cannot be read ({error})") from None
        expected = (facts.length, *facts.image_shape)
        if facts.shape != facts.image_shape or pixels.shape != expected or pixels.dtype != np.uint8:
            raise InputError(
                f"data.name: {name}: its images are {pixels.dtype} {pixels.shape}, by its facts uint8 {expected} for "
                f"models of {facts.shape}"
            )
        if labels.shape != pixels.shape[:1] or labels.dtype.kind not in "iu":
            raise InputError(f"data.name: {name}: its labels are {labels.dtype} {labels.shape}, not one integer each")
        if labels.min() < 0 or labels.max() >= facts.num_classes:
            raise InputError(
                f"data.name: {name}: its labels are {labels.min()} to {labels.max()}; accepted: 0 to "
                f"{facts.num_classes - 1}, by its facts"
            )
        return np.ascontiguousarray(pixels), labels.astype(np.int64)


def first_of_classes(labels: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Positions in `labels` of the classes `wanted`, each the first that is not taken yet.

    Raises:
        InputError: a class has too few.
    """
    places: dict[int, list[int]] = {label: [] for label in wanted}
    for place, label in enumerate(labels):
        if label in places:
            places[label].append(place)
    try:
        taken = {label: iter(its) for label, its in places.items()}
        return [next(taken[label]) for label in wanted]
    except StopIteration:
        raise InputError(f"too few images of a class; needed: {len(wanted)} of {sorted(places)}") from None


DATA = Seam(
    noun="data set",
    key="data.name",
    builtin={
        "digits": "bench.data.digits:DIGITS",
        "clip-latents": "bench.data.clips.latents:CLIP_LATENTS",
        "digits-captions": "bench.data.captions.digits:DIGITS_CAPTIONS",
        "digits-colour": "bench.data.digits:COLOURED",
        "image-folder": "bench.data.pixel_folder:IMAGE_FOLDER",
        "imagenet-256-latents": "bench.data.latent_sets:IMAGENET_256",
        "imagenet-512-latents": "bench.data.latent_sets:IMAGENET_512",
        "latents": "bench.data.latent_sets:OWN",
        "moving-digits": "bench.data.clips.moving_digits:MOVING_DIGITS",
    },
    contract=("options", "facts", "load", "reference", "check_ready"),
)


def data_part(name: str) -> Any:
    """The data set of a name: a built-in, a dotted path to an object or a class, or else a folder of one's own latents.

    Raises:
        ValueError: a dotted path that is no data set.
    """
    part = DATA.find(name if name in DATA.builtin or ":" in name else "latents")
    return part() if isinstance(part, type) else part
