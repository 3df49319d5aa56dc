"""timm's layers, without the rest of timm, which takes longer to import than a small run takes to train.

timm imports all of its models and torchvision before any layer. Here that waits until something else of timm is
imported, by whomever, and then happens as ever: `import timm` means what it always does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


@contextmanager
def deferred(*packages: str) -> Iterator[None]:
    """Inside, modules of packages are imported without executing the packages; those imported before stay as they are.

    Afterwards the packages count as not yet imported. The first import executes them, and leaves those modules as they
    are: their classes stay the same.

    Raises:
        ModuleNotFoundError: a package is not installed.
    """
    empty: dict[str, ModuleType] = {}
    try:
        for name in packages:
            if name not in sys.modules:
                empty[name] = sys.modules[name] = _empty(name)
        yield
    finally:
        for name, package in empty.items():
            del sys.modules[name]
            sys.meta_path.insert(0, _Later(package))


def _empty(name: str) -> ModuleType:
    spec = find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    package = module_from_spec(spec)
    above, _, last = name.rpartition(".")
    if above:
        setattr(sys.modules[above], last, package)
    return package


class _Later(MetaPathFinder, Loader):
    """Finds a package that has modules before it is executed: the same object, which they and others may hold."""

    def __init__(self, package: ModuleType) -> None:
        assert package.__spec__ and package.__spec__.loader
        self._package, self._spec, self._loader = package, package.__spec__, package.__spec__.loader
        self._spec.loader = self

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return self._spec if fullname == self._spec.name else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        sys.meta_path.remove(self)  # should it fail, the next attempt begins afresh
        self._spec.loader = self._loader
        return self._package

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)


# timm takes two names from torchvision.
with deferred("timm", "timm.layers", "torchvision", "torchvision.models"):
    from timm.layers.activations import GELUTanh
    from timm.layers.attention import Attention, AttentionRope
    from timm.layers.mlp import GluMlp, Mlp, SwiGLUPacked
    from timm.layers.patch_embed import PatchEmbed
    from timm.layers.pos_embed_sincos import build_rotary_pos_embed

__all__ = [
    "Attention",
    "AttentionRope",
    "GELUTanh",
    "GluMlp",
    "Mlp",
    "PatchEmbed",
    "SwiGLUPacked",
    "build_rotary_pos_embed",
]
