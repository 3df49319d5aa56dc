"""`load_pretrained` of networks that are no DiTs: one line says whose weights they are, and what is accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from models import create_model, load_pretrained

SIZES: dict[str, Any] = {"hidden_size": 16, "num_heads": 2, "patch_size": 2, "input_size": 4}
CAPTIONS: dict[str, Any] = {"caption_tokens": 3, "caption_channels": 8}
CLIPS: dict[str, Any] = {"depth": 1, **SIZES, "patch_frames": 1, "frames": 2}


@pytest.mark.parametrize(
    ("model", "options", "named"),
    [
        ("VideoDiT", CLIPS, "a VideoDiT"),
        ("VideoDiT", {**CLIPS, "conditioning": "captions", **CAPTIONS}, "a VideoDiT"),
        ("U-ViT", {"depth": 1, **SIZES}, "a U-ViT"),
        ("UNet-S", {}, "a U-Net"),
        ("PixArt", {"depth": 1, **SIZES, **CAPTIONS}, "caption_tokens"),
        ("JiT", {"depth": 2, **SIZES}, "qk_norm"),
    ],
)
def test_it_says_whose_weights_they_are(tmp_path: Path, model: str, options: dict[str, Any], named: str) -> None:
    path = tmp_path / "weights.pt"
    torch.save(create_model(model, **options).state_dict(), path)
    with pytest.raises(ValueError, match=r"weights\.pt: ") as caught:
        load_pretrained(path, num_heads=2)
    message = str(caught.value)
    assert named in message and "accepted: such weights in their run's folder" in message and "\n" not in message


def test_pixart_with_labels_is_a_dit_in_its_design(tmp_path: Path) -> None:
    """They are one network, so its weights are taken for what they are."""
    network = create_model("PixArt", depth=1, num_classes=3, **SIZES).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    found = load_pretrained(tmp_path / "weights.pt", num_heads=2)
    x, t, y = torch.randn(2, 4, 4, 4), torch.tensor([3.0, 700.0]), torch.tensor([1, 3])
    for parameter in network.parameters():  # the last layer starts at zero
        parameter.data.normal_(std=0.1)
    found.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(found(x, t, y), network(x, t, y)) and found(x, t, y).any()
