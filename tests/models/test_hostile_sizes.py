"""Sizes that anybody may write into a file's header cost no time: they are refused, or multiplied out."""

from __future__ import annotations

from typing import Any

import pytest

from models.registry import configure, family_of

MANY = 10**8


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("UNet-S", {"res_blocks": MANY}),
        ("UNet3D-digits", {"levels": MANY}),
        ("UNet3D-digits", {"layers": MANY}),
    ],
)
def test_blocks_that_are_looked_at_one_by_one_are_limited(name: str, given: dict[str, Any]) -> None:
    (key,) = given
    with pytest.raises(ValueError, match=rf"^{key}: {MANY}; accepted: 1 to \d+$"):
        configure(name, **given)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("DiT-S/2", {}),
        ("JiT-B/16", {}),
        ("U-ViT-S/2", {}),
        ("VideoDiT-S/2x2x2", {}),
        ("PixArt-XL/2", {"window_size": 4, "global_every": 2, "use_rel_pos": True}),
    ],
)
def test_blocks_that_are_alike_are_multiplied(name: str, given: dict[str, Any]) -> None:
    """What two more blocks add is the same at any depth."""

    def added(depth: int) -> tuple[int, int]:
        less, more = (family_of(name).count(configure(name, depth=n, **given)) for n in (depth, depth + 2))
        assert less is not None and more is not None
        return more.macs - less.macs, more.parameters - less.parameters

    assert added(MANY + 1) == added(13)
