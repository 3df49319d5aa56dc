"""U-Nets: published sizes and costs, the closed form against the count, and diffusers' own models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from bench.flops import counted
from models import create_model
from models.registry import configure
from models.unet.config import FAMILY
from models.unet.cost import count, macs_by_part

# Two small ones: three levels, one or two of which attend.
ADM: dict[str, Any] = {
    "design": "adm", "input_size": 8, "in_channels": 2, "num_classes": 3, "channels": 8, "multipliers": [0.5, 1, 2],
    "res_blocks": 1, "attention": [4], "head_size": 4, "groups": 2, "learn_sigma": True,
}  # fmt: skip
LDM: dict[str, Any] = {
    "design": "ldm", "input_size": 8, "in_channels": 2, "num_classes": 3, "channels": 8, "multipliers": [1, 2, 3],
    "res_blocks": 2, "attention": [2, 4], "num_heads": 2, "groups": 4, "label_size": 6,
}  # fmt: skip


# Parameters in millions: ADM, arXiv 2105.05233 Tables 11 and 12; LDM, arXiv 2112.10752 Table 10, without the table of
# labels. GMACs: arXiv 2212.09748 Table 6, of an upsampler with the network before it.
@pytest.mark.parametrize(
    ("name", "parameters", "before", "gmacs"),
    [
        ("ADM-64", "296", None, None),
        ("ADM-128", "422", None, "307"),
        ("ADM-256", "554", None, "1120"),
        ("ADM-512", "559", None, "1983"),
        ("ADM-U-256", "312", "ADM-64", "742"),
        ("ADM-U-512", "309", "ADM-128", "2813"),
        ("LDM-8", "395", None, "57"),
    ],
)
def test_published_sizes_and_costs(name: str, parameters: str, before: str | None, gmacs: str | None) -> None:
    config = configure(name)
    cost = count(config)
    labels = 1001 * config.label_size if config.design == "ldm" else 0
    assert f"{(cost.parameters - labels) / 1e6:.0f}" == parameters
    macs = cost.macs + (count(configure(before)).macs if before else 0)
    assert gmacs is None or f"{macs / 1e9:.0f}" == gmacs


def test_ldm_4_is_the_published_network_and_costs_more_than_is_printed() -> None:
    """400.92 M parameters by its authors' log, printed as 400; 103.6 GMACs, which no part of it explains."""
    config = configure("LDM-4")
    cost = count(config)
    assert round((cost.parameters - 1001 * 512) / 1e6, 2) == 400.92
    assert round(cost.macs / 1e9, 2) == 104.26
    parts = {part: round(macs / 1e9, 3) for part, macs in macs_by_part(config).items()}
    assert parts == {
        "embedders": 0.001,
        "first and last convolution": 0.042,
        "convolutions of residual blocks": 54.549,
        "shortcuts of residual blocks": 2.999,
        "timestep in residual blocks": 0.01,
        "halving and doubling the side": 11.487,
        "linear maps around transformers": 3.067,
        "linear maps of self-attention": 6.134,
        "products of self-attention": 4.451,
        "attention to the label": 3.084,
        "MLPs of transformers": 18.403,
        "norms": 0.032,
    }


FAST = ("UNet-S", "ADM-256")


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILY.presets if name not in FAST)]
)
def test_the_closed_form_of_a_preset_is_what_is_counted(name: str) -> None:
    config = configure(name)
    assert count(config) == counted(name, config).cost


@pytest.mark.parametrize(
    "options",
    [
        ADM,
        LDM,
        {**ADM, "multipliers": [1], "attention": [], "res_blocks": 2, "learn_sigma": False},
        {**ADM, "low_resolution_channels": 1, "attention": [8, 4, 2], "head_size": 2},
        {**LDM, "input_size": 12, "attention": [12]},
    ],
)
def test_the_closed_form_is_what_is_counted(options: dict[str, Any]) -> None:
    config = configure("UNet", **options)
    found = counted("UNet", config)
    assert count(config) == found.cost
    assert sum(macs_by_part(config).values()) == found.cost.macs
    assert found.by_module["mid_block"] + found.by_module["down_blocks"] < found.cost.macs


def theirs(options: dict[str, Any]) -> nn.Module:
    """diffusers' own model of these sizes, without the table of labels for ldm."""
    sides = [options["input_size"] >> level for level in range(len(options["multipliers"]))]
    adm = options["design"] == "adm"
    attending, other = ("Attn{}Block2D", "Resnet{}sampleBlock2D") if adm else ("CrossAttn{}Block2D", "{}Block2D")
    kinds = [attending if side in options["attention"] else other for side in sides]
    shape: dict[str, Any] = {
        "in_channels": options["in_channels"],
        "out_channels": options["in_channels"] * (2 if options.get("learn_sigma") else 1),
        "down_block_types": [kind.format("Down") for kind in kinds],
        "up_block_types": [kind.format("Up") for kind in reversed(kinds)],
        "block_out_channels": [int(options["channels"] * times) for times in options["multipliers"]],
        "layers_per_block": options["res_blocks"],
        "norm_num_groups": options["groups"],
    }
    if not adm:
        return UNet2DConditionModel(
            **shape, attention_head_dim=options["num_heads"], cross_attention_dim=options["label_size"]
        )
    return UNet2DModel(
        **shape, attention_head_dim=options["head_size"], attn_norm_num_groups=options["groups"],
        downsample_type="resnet", upsample_type="resnet", resnet_time_scale_shift="scale_shift",
        num_class_embeds=options["num_classes"] + 1,
    )  # fmt: skip


def with_random_weights(options: dict[str, Any]) -> Any:
    network = create_model("UNet", **options).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=random)
    return network


# diffusers' model ties the timestep's features to the first level's channels, so it has no half of them.
@pytest.mark.parametrize("options", [{**ADM, "multipliers": [1, 2, 3]}, LDM], ids=["adm", "ldm"])
def test_diffusers_own_model_computes_the_same_with_the_same_weights(options: dict[str, Any]) -> None:
    ours = with_random_weights(options)
    random = torch.Generator().manual_seed(1)
    x = torch.randn(4, 2, 8, 8, generator=random)
    t, y = torch.tensor([0, 7, 500, 999]), torch.tensor([0, 1, 2, 3])
    weights, label = dict(ours.state_dict()), {"class_labels": y}
    if options["design"] == "ldm":
        label = {"encoder_hidden_states": weights.pop("class_embedding.weight")[y][:, None]}
    other = theirs(options).eval()
    other.load_state_dict(weights, strict=True)
    with torch.no_grad():
        torch.testing.assert_close(ours(x, t, y), other(x, t, **label).sample, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [ADM, LDM], ids=["adm", "ldm"])
class TestANetwork:
    def test_begins_with_blocks_that_change_nothing(self, options: dict[str, Any]) -> None:
        network: Any = create_model("UNet", **options).eval()
        assert not network(torch.randn(2, 2, 8, 8), torch.tensor([3, 4]), torch.tensor([0, 3])).any()
        x, told = torch.randn(2, network.config.widths[-1], 2, 2), torch.randn(2, network.config.embedding_size)
        token = {"encoder_hidden_states": torch.randn(2, 1, 6)} if options["design"] == "ldm" else {}
        torch.testing.assert_close(network.mid_block(x, told, **token), x)

    def test_sees_time_and_label_and_each_image_alone(self, options: dict[str, Any]) -> None:
        network = with_random_weights(options)
        x, t, y = torch.randn(3, 2, 8, 8), torch.tensor([1.5, 300.0, 900.0]), torch.tensor([0, 1, 3])

        def called(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            with torch.no_grad():
                return network(x, t, y)

        whole = called(x, t, y)
        assert whole.shape == (3, network.config.out_channels, 8, 8)
        alone = torch.cat([called(x[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(whole, alone, rtol=1e-5, atol=1e-5)
        for changed in (called(x, t + 100, y), called(x, t, torch.tensor([1, 2, 0]))):
            assert ((whole - changed).abs().amax((1, 2, 3)) > 1e-4).all()


def test_what_overrides_a_preset() -> None:
    assert configure("ADM-256", image_size=512).sides == (512, 256, 128, 64, 32, 16)
    assert configure("LDM-4", image_size=512).input_shape == (3, 128, 128)
    assert configure("LDM-4", input_size=32, image_size=999).input_size == 32
    assert configure("ADM-256", num_heads=4).heads(512) == 4
    assert configure("ADM-128", head_size=64).heads(512) == 8
    assert configure("ADM-U-256").out_channels == 6
    assert configure("UNet-S").num_classes == 10 and configure("LDM-8").num_classes == 1000


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("UNet", {}, ["'UNet'", "design", "input_size", "channels", "multipliers", "attention", "head_size"]),
        ("UNet-S", {"design": "dit"}, ["design", "'dit'", "adm, ldm"]),
        ("UNet-S", {"channels": 9}, ["channels", "9", "odd"]),
        ("UNet-B", {"channels": 10, "groups": 4}, ["10 channels", "4 groups"]),
        ("UNet-S", {"channels": 8.0}, ["channels", "8.0", "whole"]),
        ("UNet-S", {"groups": 0}, ["groups", "0"]),
        ("UNet-S", {"multipliers": []}, ["multipliers", "none"]),
        ("UNet-S", {"multipliers": "1,2"}, ["multipliers", "'1,2'", "list"]),
        ("UNet-S", {"multipliers": [1, -2, 1]}, ["multipliers", "-2"]),
        ("UNet-S", {"multipliers": [1, 1, 1, 1, 1]}, ["input_size", "8", "5 levels", "16"]),
        ("UNet-S", {"multipliers": [1, 1.3]}, ["multipliers", "1.3"]),
        ("UNet-S", {"attention": [3]}, ["attention", "3", "8, 4, 2"]),
        ("UNet-S", {"attention": [2.0]}, ["attention", "2.0"]),
        ("UNet-B", {"head_size": 3}, ["head_size", "3", "16 channels"]),
        ("UNet-S", {"head_size": 8, "num_heads": 2}, ["head_size", "num_heads"]),
        ("UNet-S", {"res_blocks": 0}, ["res_blocks", "0"]),
        ("UNet-S", {"res_blocks": True}, ["res_blocks", "True"]),
        ("UNet-S", {"label_size": 8}, ["label_size", "adm"]),
        ("UNet-S", {"num_classes": 0}, ["num_classes", "0"]),
        ("UNet-S", {"low_resolution_channels": 1}, ["low_resolution_channels", "1"]),
        ("UNet-S", {"learn_sigma": 1}, ["learn_sigma", "1"]),
        ("ADM-256", {"image_size": 250}, ["input_size", "250", "32"]),
        ("LDM-8", {"image_size": 250}, ["image_size", "250", "8"]),
        ("LDM-8", {"downsampling": 0}, ["downsampling", "0"]),
    ],
)  # fmt: skip
def test_sizes_that_do_not_fit_are_named(name: str, options: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        configure(name, **options)
    message = str(caught.value)
    assert "\n" not in message and [word for word in named if word not in message] == []
