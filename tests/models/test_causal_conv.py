"""Causal convolutions and the autoencoder of them: which frames see which, and that weights are `nn.Conv3d`'s."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.video.autoencoder import AutoencoderConfig, CausalAutoencoder, Posterior
from models.video.causal_conv import CausalConv3d, Mode, set_mode

BOTH_SIDES = ("one frame", "more frames")
KINDS: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": (3, 1, 1)},
    {"kernel_size": (2, 3, 3)},
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": (3, 3, 3), "stride": (2, 1, 1)},
    {"kernel_size": 3, "dilation": 2},
    {"kernel_size": (4, 3, 5), "dilation": (3, 1, 2), "stride": (1, 2, 1)},
    {"kernel_size": 1, "stride": 2},
]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def last_frames_seen(network: Any, x: Tensor) -> list[int]:
    """Of each frame that comes out, the last one going in that changes it; -1: none."""
    with torch.no_grad():
        out = network(x)
        last = [-1] * out.shape[2]
        for frame in range(x.shape[2]):
            other = x.clone()
            other[:, :, frame] += torch.randn_like(x[:, :, frame])
            changed = (network(other) != out).transpose(1, 2).flatten(2).any(dim=2).any(dim=0)
            for k in changed.nonzero().flatten().tolist():
                last[k] = frame
    return last


def test_its_weights_are_a_conv3ds() -> None:
    convolution = CausalConv3d(3, 5, kernel_size=(3, 2, 2), stride=(1, 2, 2), bias=True)
    plain = nn.Conv3d(3, 5, kernel_size=(3, 2, 2))
    assert {k: v.shape for k, v in convolution.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }
    convolution.load_state_dict(plain.state_dict())
    assert list(CausalConv3d(3, 5, bias=False).state_dict()) == ["weight"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", get_args(Mode))
def test_it_is_the_convolution_of_the_padded_clip(mode: Mode, kind: dict[str, Any]) -> None:
    convolution = CausalConv3d(2, 3, **kind).double()
    set_mode(convolution, mode)
    x = torch.randn(2, 2, 7, 9, 11, dtype=torch.float64)
    kernel, stride, dilation = (_three(kind.get(name, 1)) for name in ("kernel_size", "stride", "dilation"))

    def both(k: int, d: int, s: int) -> int:
        return max(0, -(-((k - 1) * d + 1 - s) // 2))

    height, width = (both(kernel[axis], dilation[axis], stride[axis]) for axis in (1, 2))
    if mode == "video":
        repeated = [x[:, :, :1]] * ((kernel[0] - 1) * dilation[0])
        whole = torch.cat([*repeated, x], dim=2)
    else:
        zeros = torch.zeros_like(x[:, :, :1])
        beside = [zeros] * both(kernel[0], dilation[2], stride[2])
        whole = torch.cat([*beside, x, *beside], dim=2)
    whole = F.pad(whole, (width, width, height, height))
    expected = F.conv3d(whole, convolution.weight, convolution.bias, stride, dilation=dilation)
    torch.testing.assert_close(convolution(x), expected)


def _three(value: Any) -> tuple[int, int, int]:
    return (value, value, value) if isinstance(value, int) else value


@pytest.mark.parametrize("kind", KINDS)
def test_in_video_mode_frame_k_sees_the_frames_up_to_k_strides(kind: dict[str, Any]) -> None:
    convolution = CausalConv3d(2, 3, **kind).double()
    assert convolution.mode == "video"
    stride = _three(kind.get("stride", 1))[0]
    x = torch.randn(1, 2, 9, 4, 4, dtype=torch.float64)
    assert last_frames_seen(convolution, x) == [k * stride for k in range((9 - 1) // stride + 1)]


@pytest.mark.parametrize("mode", BOTH_SIDES)
def test_with_zeros_on_both_sides_later_frames_are_seen_as_far_as_the_zeros_go(mode: Mode) -> None:
    convolution = CausalConv3d(2, 3, kernel_size=(5, 3, 3)).double()
    set_mode(convolution, mode)
    x = torch.randn(1, 2, 6, 4, 4, dtype=torch.float64)
    assert last_frames_seen(convolution, x) == [2, 3, 4, 5, 5, 5]


@pytest.mark.parametrize("mode", BOTH_SIDES)
def test_with_zeros_on_both_sides_one_frame_is_convolved_with_the_middle_of_the_kernel(mode: Mode) -> None:
    convolution = CausalConv3d(2, 3).double()
    set_mode(convolution, mode)
    x = torch.randn(2, 2, 1, 5, 5, dtype=torch.float64)
    image = F.conv2d(x.squeeze(2), convolution.weight[:, :, 1], convolution.bias, padding=1)
    torch.testing.assert_close(convolution(x).squeeze(2), image)


@pytest.mark.parametrize("padding", [0, 2])
def test_the_padding_of_space_as_given(padding: int) -> None:
    assert CausalConv3d(2, 3, padding=padding)(torch.zeros(1, 2, 4, 6, 7)).shape == (
        *(1, 3, 4),
        *(6 + 2 * padding - 2, 7 + 2 * padding - 2),
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kernel_size": 0}, "kernel_size: 0"),
        ({"kernel_size": (3, 3)}, "kernel_size: (3, 3)"),
        ({"stride": 1.5}, "stride: 1.5"),
        ({"dilation": (1, 1, 0)}, "dilation: (1, 1, 0)"),
        ({"padding": -1}, "padding: -1"),
        ({"padding": "same"}, "padding: 'same'"),
    ],
)
def test_sizes_that_are_none_are_refused(options: Any, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        CausalConv3d(2, 3, **options)
    assert says in str(caught.value)


def test_a_mode_is_set_for_all_convolutions_of_a_network() -> None:
    network = CausalAutoencoder(SMALL)
    set_mode(network, "one frame")
    modes = {module.mode for module in network.modules() if isinstance(module, CausalConv3d)}
    assert modes == {"one frame"}
    with pytest.raises(ValueError, match="one frame, more frames"):
        set_mode(network, "two frames")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="Linear"):
        set_mode(nn.Linear(2, 2), "video")


# The autoencoder

SMALL = AutoencoderConfig(in_channels=1, latent_channels=2, channels=(4, 8, 8), time_factors=(2, 1), groups=2)


def autoencoder(config: AutoencoderConfig = SMALL) -> CausalAutoencoder:
    return CausalAutoencoder(config).double().eval()


@pytest.mark.parametrize("mode", get_args(Mode))
@pytest.mark.parametrize(
    ("factors", "frames", "latent_frames"),
    [((2, 1), 1, 1), ((2, 1), 7, 4), ((2, 2), 1, 1), ((2, 2), 5, 2), ((2, 2), 9, 3), ((1, 1), 4, 4)],
)
def test_an_image_or_a_clip_to_latents_and_back(mode: Mode, factors: Any, frames: int, latent_frames: int) -> None:
    network = autoencoder(AutoencoderConfig(1, 2, (4, 8, 8), factors, 2))
    set_mode(network, mode)
    x = torch.randn(2, 1, frames, 8, 12, dtype=torch.float64)
    decoded, posterior = network(x)
    assert posterior.mean.shape == posterior.logvar.shape == (2, 2, latent_frames, 2, 3)
    assert decoded.shape == x.shape


def test_latents_see_no_later_frame_and_decoded_frames_no_later_latents() -> None:
    network = autoencoder()
    x = torch.randn(1, 1, 7, 8, 8, dtype=torch.float64)
    assert last_frames_seen(lambda x: torch.cat(network.encode(x), dim=1), x) == [0, 2, 4, 6]
    latents = torch.randn(1, 2, 4, 2, 2, dtype=torch.float64)
    assert last_frames_seen(network.decode, latents) == [0, 1, 1, 2, 2, 3, 3]


def test_a_longer_clip_begins_as_the_shorter_one_and_an_image_is_a_clip() -> None:
    network = autoencoder()
    x = torch.randn(1, 1, 7, 8, 8, dtype=torch.float64)
    whole = network.encode(x)
    for frames in (1, 3, 5):
        part = network.encode(x[:, :, :frames])
        torch.testing.assert_close(part.mean, whole.mean[:, :, : part.mean.shape[2]])
        decoded = network.decode(part.mean)
        torch.testing.assert_close(decoded, network.decode(whole.mean)[:, :, :frames])


def test_the_posterior_is_a_gaussian() -> None:
    posterior = Posterior(torch.full((2, 1, 1, 1, 3), 0.5), torch.full((2, 1, 1, 1, 3), -1.0))
    normal = torch.distributions.Normal(0.5, torch.exp(torch.tensor(-0.5)))
    expected = 3 * torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(posterior.kl(), expected.expand(2))
    many = Posterior(torch.full((1, 1, 1, 200, 200), 0.5), torch.full((1, 1, 1, 200, 200), -1.0))
    sampled = many.sample(torch.Generator().manual_seed(0))
    assert sampled.mean().item() == pytest.approx(0.5, abs=0.02)
    assert sampled.std().item() == pytest.approx(torch.exp(torch.tensor(-0.5)).item(), rel=0.02)
    assert torch.equal(sampled, many.sample(torch.Generator().manual_seed(0)))


def test_log_variances_are_bounded() -> None:
    network = autoencoder()
    x = torch.full((1, 1, 3, 8, 8), 1.0, dtype=torch.float64)
    torch.nn.init.constant_(network.get_parameter("encoder.8.bias"), 1e4)
    assert network.encode(x).logvar.max() == 20


@pytest.mark.parametrize(
    ("shape", "says"),
    [((1, 1, 4, 8, 8), "4 frames; accepted: 1, 3, 5"), ((1, 1, 3, 8, 6), "8 x 6"), ((1, 3, 3, 8, 8), "1 channels"),
     ((1, 1, 8, 8), "(1, 8, 8)")],
)  # fmt: skip
def test_clips_that_do_not_fit_are_refused(shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(ValueError) as caught:
        CausalAutoencoder(SMALL).encode(torch.zeros(shape))
    assert says in str(caught.value)
    with pytest.raises(ValueError, match="2 channels"):
        CausalAutoencoder(SMALL).decode(torch.zeros(1, 3, 1, 2, 2))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"channels": (4, 8)}, "time_factors: 2 between 2 levels"),
        ({"time_factors": (2, 3)}, "time_factors: 3"),
        ({"groups": 3}, "groups: 3 does not divide channels 4"),
        ({"latent_channels": 0}, "latent_channels: 0"),
    ],
)
def test_an_autoencoder_of_sizes_that_do_not_fit_is_refused(options: Any, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        CausalAutoencoder(AutoencoderConfig(**{**vars(SMALL), **options}))
    assert says in str(caught.value)
