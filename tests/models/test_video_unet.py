"""The U-Net of clips: what its frames know of each other, where it starts, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models import create_model
from models.registry import configure

SIZES: dict[str, Any] = {
    "channels": 8, "levels": 2, "layers": 1, "attention_size": 4, "head_size": 4, "groups": 4, "frames": 4,
    "input_size": 8, "in_channels": 2, "num_classes": 3,
}  # fmt: skip


def unet(randomised: bool = True, **options: Any) -> Any:
    torch.manual_seed(0)
    network = create_model("UNet3D", **{**SIZES, **options}).double().eval()
    if randomised:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_(std=0.3)
    return network


def inputs(network: Any) -> tuple[torch.Tensor, ...]:
    x = torch.randn(2, *network.arch.input_shape, dtype=torch.float64)
    return x, torch.tensor([7, 900]), torch.tensor([1, SIZES["num_classes"]])


@pytest.mark.parametrize("learn_sigma", [True, False])
def test_a_prediction_of_every_pixel_that_starts_at_zero(learn_sigma: bool) -> None:
    network = unet(randomised=False, learn_sigma=learn_sigma)
    prediction = network(*inputs(network))
    assert prediction.shape == (2, 4 if learn_sigma else 2, 4, 8, 8)
    assert prediction.dtype == torch.float32
    assert not prediction.any()


def test_clips_are_by_themselves_and_their_frames_are_not() -> None:
    network = unet()
    x, t, labels = inputs(network)
    other = x.clone()
    other[0, :, 3] += 1
    changed = (network(other, t, labels) != network(x, t, labels)).flatten(3).any(dim=3).any(dim=1)
    assert changed.tolist() == [[True] * 4, [False] * 4]


def test_it_is_a_network_of_frames_until_its_layers_in_time_have_learned() -> None:
    """diffusers' convolutions in time start as nothing; without attention there is no other layer in time."""
    network = unet(randomised=False, attention_size=1)
    torch.nn.init.normal_(network.conv_out.weight)
    x, t, labels = inputs(network)
    other = x.clone()
    other[:, :, 3] += 1
    changed = (network(other, t, labels) != network(x, t, labels)).flatten(3).any(dim=3).any(dim=1)
    assert changed.tolist() == [[False, False, False, True]] * 2


def test_time_and_label_reach_it() -> None:
    network = unet()
    x, t, labels = inputs(network)
    out = network(x, t, labels)
    assert not torch.allclose(out, network(x, t + 50, labels))
    assert not torch.allclose(out, network(x, t, labels.flip(0)))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"channels": 0}, "channels: 0"),
        ({"groups": 3}, "groups: 3 does not divide channels 8"),
        ({"input_size": 9}, "input_size: 9 with levels 2; accepted: multiples of 2"),
        ({"head_size": 5}, "head_size: 5"),
        ({"frames": -1}, "frames: -1"),
        ({"learn_sigma": "no"}, "learn_sigma: 'no'"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as caught:
        configure("UNet3D", **{**SIZES, **options})
    assert says in str(caught.value)


def test_without_channels_there_is_no_network_and_clips_have_to_be_its() -> None:
    with pytest.raises(ValueError, match="channels"):
        configure("UNet3D")
    network = unet()
    x, t, labels = inputs(network)
    with pytest.raises(ValueError, match=r"\(2, 4, 8, 8\)"):
        network(x[:, :, :3], t, labels)


def test_without_attention_it_is_diffusers_blocks_one_after_the_other() -> None:
    """DownBlock3D and UpBlock3D, as `UNet3DConditionModel` has them, with the same weights."""
    from diffusers.models.unets.unet_3d_blocks import DownBlock3D, UpBlock3D

    network = unet(attention_size=1)
    also: dict[str, Any] = {
        "temb_channels": 32, "resnet_eps": 1e-5, "resnet_time_scale_shift": "scale_shift", "resnet_groups": 4,
    }  # fmt: skip

    def loaded(block: Any, layers: list[Any], resampling: Any = None) -> Any:
        for mine, resnet, in_time in zip(layers, block.resnets, block.temp_convs, strict=True):
            resnet.load_state_dict(mine.resnet.state_dict())
            in_time.load_state_dict(mine.conv_in_time.state_dict())
        kind, prefix = ("downsamplers", "conv.") if isinstance(block, DownBlock3D) else ("upsamplers", "Conv2d_0.")
        if resampling is not None:
            weights = {name.removeprefix(prefix): value for name, value in resampling.state_dict().items()}
            getattr(block, kind)[0].conv.load_state_dict(weights)
        return block.double().eval()

    down, up = list(network.down), list(network.up)
    fine = loaded(DownBlock3D(8, 8, num_layers=1, **also), down[:1], down[1])
    coarse = loaded(DownBlock3D(8, 16, num_layers=1, add_downsample=False, **also), down[2:])
    middle = loaded(DownBlock3D(16, 16, num_layers=2, add_downsample=False, **also), list(network.middle))
    coarse_up = loaded(UpBlock3D(8, 16, 16, num_layers=2, **also), up[:2], up[2])
    fine_up = loaded(UpBlock3D(8, 16, 8, num_layers=2, add_upsample=False, **also), up[3:])

    clips, t, labels = inputs(network)
    embedded = (network.t_embedder(t) + network.y_embedder(labels)).repeat_interleave(4, dim=0)
    x = network.conv_in(clips.transpose(1, 2).flatten(0, 1))
    skips = (x,)
    for block in (fine, coarse):
        x, more = block(x, embedded, num_frames=4)
        skips += more
    x, _ = middle(x, embedded, num_frames=4)
    x = coarse_up(x, skips[2:], embedded, num_frames=4)
    x = fine_up(x, skips[:2], embedded, num_frames=4)
    x = network.conv_out(torch.nn.functional.silu(network.norm_out(x)))
    expected = x.unflatten(0, (2, 4)).transpose(1, 2).float()
    torch.testing.assert_close(network(clips, t, labels), expected)
