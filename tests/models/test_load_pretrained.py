"""Checkpoints of others and our own: every layout gives back its weights, and the sizes are read off the tensors."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from pretrained_models import small, theirs
from safetensors.torch import save_file

from bench.files import checkpoint
from models import BLOCKS, create_model, load_pretrained
from models.diffusers_weights import to_diffusers
from models.transformer import DiT
from models.weights import infer_architecture

# Of labels, PixArt's weights are those of adaLN-single, and compute the same.
TOLD_APART = [block for block in BLOCKS if block != "pixart"]


def assert_same(actual: DiT, expected: DiT) -> None:
    """The same architecture, tensors to the last bit, and mode."""
    assert actual.arch == expected.arch
    state, other = actual.state_dict(), expected.state_dict()
    assert list(state) == list(other)
    assert [name for name in other if not torch.equal(state[name], other[name])] == []
    assert not actual.training
    frozen = [name for name, parameter in actual.named_parameters() if not parameter.requires_grad]
    assert frozen == ["pos_embed"]


def test_official_state_dict(tmp_path: Path) -> None:
    model = small()
    torch.save(model.state_dict(), tmp_path / "official.pt")
    assert_same(load_pretrained(tmp_path / "official.pt", num_heads=4), model)
    shutil.copy(tmp_path / "official.pt", tmp_path / "official.pth")
    assert_same(load_pretrained(str(tmp_path / "official.pth"), num_heads=4), model)


def test_official_training_checkpoint_gives_its_ema(tmp_path: Path) -> None:
    model, ema = small(), small()
    with torch.no_grad():
        ema.pos_embed.add_(1)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(1, 4, 8, 8), torch.tensor([3]), torch.tensor([1])).sum().backward()
    optimizer.step()
    args = argparse.Namespace(model="DiT-XL/2", image_size=256, results_dir="results", global_seed=0)
    content = {"model": model.state_dict(), "ema": ema.state_dict(), "opt": optimizer.state_dict(), "args": args}
    torch.save(content, tmp_path / "0400000.pt")
    assert_same(load_pretrained(tmp_path / "0400000.pt", num_heads=4), ema)


def test_ema_weights_of_a_run(tmp_path: Path) -> None:
    model = small()
    checkpoint.save_tensors(tmp_path / "ema-00000010.safetensors", model.state_dict(), {"step": "10"})
    loaded = load_pretrained(tmp_path / "ema-00000010.safetensors", num_heads=4)
    assert_same(loaded, model)
    # The model does not stand on the file's bytes.
    before = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    (tmp_path / "ema-00000010.safetensors").write_bytes(bytes(1 << 20))
    assert all(torch.equal(before[name], tensor) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("block", TOLD_APART)
@pytest.mark.parametrize("learn_sigma", [True, False])
def test_every_block_design(tmp_path: Path, block: str, learn_sigma: bool) -> None:
    model = small(block, learn_sigma=learn_sigma)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    assert_same(load_pretrained(tmp_path / "model.pt", num_heads=4), model)


@settings(max_examples=60, deadline=None)
@given(
    block=st.sampled_from(TOLD_APART),
    depth=st.integers(1, 12),
    heads=st.sampled_from([1, 2, 4]),
    width=st.integers(1, 12),
    patch_size=st.integers(1, 4),
    grid_size=st.integers(1, 5),
    in_channels=st.integers(1, 5),
    num_classes=st.integers(1, 12),
    learn_sigma=st.booleans(),
    mlp_width=st.integers(1, 200),
    frequencies=st.integers(1, 8),
)
def test_sizes_come_from_the_shapes(
    block: str, depth: int, heads: int, width: int, patch_size: int, grid_size: int, in_channels: int,
    num_classes: int, learn_sigma: bool, mlp_width: int, frequencies: int,
) -> None:  # fmt: skip
    hidden_size = 4 * width
    ratio = next(r for r in (mlp_width / hidden_size, (mlp_width + 0.5) / hidden_size) if int(hidden_size * r))
    with torch.device("meta"):
        model = create_model(
            "DiT", block=block, in_channels=in_channels, num_classes=num_classes, learn_sigma=learn_sigma, depth=depth,
            hidden_size=hidden_size, num_heads=heads, patch_size=patch_size, input_size=patch_size * grid_size,
            mlp_ratio=ratio, frequency_embedding_size=2 * frequencies,
        )  # fmt: skip
        arch = infer_architecture(model.state_dict(), num_heads=heads)
        again = DiT(arch)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    for field in ("block", "depth", "hidden_size", "num_heads", "patch_size", "input_size", "in_channels"):
        assert getattr(arch, field) == getattr(model.arch, field)
    assert (arch.num_classes, arch.learn_sigma) == (num_classes, learn_sigma)
    assert (arch.frequency_embedding_size, arch.label_init_std) == (2 * frequencies, 0.02)


def test_an_mlp_whose_ratio_does_not_survive_division() -> None:
    """1 / 196 x 196 is less than 1 in floating point."""
    with torch.device("meta"):
        state = create_model("DiT", depth=1, hidden_size=196, num_heads=4, patch_size=2, mlp_ratio=1 / 190).state_dict()
        again = DiT(infer_architecture(state, num_heads=4)).state_dict()
    assert state["blocks.0.mlp.fc1.weight"].shape == again["blocks.0.mlp.fc1.weight"].shape == (1, 196)


@pytest.mark.parametrize(("size", "heads"), [("S", 6), ("B", 12), ("L", 16), ("XL", 16)])
def test_heads_of_the_papers_models_by_their_width(size: str, heads: int) -> None:
    with torch.device("meta"):
        state = create_model(f"DiT-{size}/2", depth=1).state_dict()
    arch = infer_architecture(state)
    assert arch.num_heads == heads
    assert (arch.input_size, arch.num_classes, arch.mlp_ratio) == (32, 1000, 4.0)


def test_the_official_names_are_located_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DITBENCH_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="ditbench prepare DiT-XL/2-256"):
        load_pretrained("DiT-XL/2-256", offline=True)
    model = small()
    (tmp_path / "dit").mkdir()
    for name, shift in (("DiT-XL-2-256x256.pt", 0.0), ("DiT-XL-2-512x512.pt", 1.0)):
        state = model.state_dict()
        torch.save(
            state | {"final_layer.linear.bias": state["final_layer.linear.bias"] + shift}, tmp_path / "dit" / name
        )
    one = load_pretrained("DiT-XL/2-256", offline=True, num_heads=4)
    assert_same(one, model)
    other = load_pretrained("DiT-XL/2-512", offline=True, num_heads=4)
    key = "final_layer.linear.bias"
    assert torch.equal(other.state_dict()[key], one.state_dict()[key] + 1)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    model = small()
    torch.save({name: tensor.half() for name, tensor in model.state_dict().items()}, tmp_path / "half.pt")
    loaded = load_pretrained(tmp_path / "half.pt", num_heads=4)
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, model.state_dict()[name].half().float())


# diffusers' folders


@torch.no_grad()
def assert_computes(model: DiT, transformer: DiTTransformer2DModel) -> None:
    for module in transformer.modules():
        if hasattr(module, "time_proj"):
            setattr(module.time_proj, "downscale_freq_shift", 0)  # noqa: B010 - the stub types it a tensor
    x, t, y = torch.randn(3, 4, 8, 8), torch.tensor([0, 321, 999]), torch.tensor([0, 7, 3])
    expected = transformer(x, timestep=t, class_labels=y, return_dict=False)[0]
    assert expected.std() > 0.1
    assert torch.allclose(model(x, t, y), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("shard_size", ["1GB", "40KB"])
def test_a_transformer_that_diffusers_saved(tmp_path: Path, safe: bool, shard_size: str) -> None:
    transformer = theirs()
    transformer.save_pretrained(tmp_path, safe_serialization=safe, max_shard_size=shard_size)
    assert (len(list(tmp_path.glob("*-of-*"))) > 1) == (shard_size == "40KB")
    model = load_pretrained(tmp_path)
    assert model.arch == small().arch
    assert_computes(model, transformer)


def test_the_folder_of_a_pipeline(tmp_path: Path) -> None:
    """With the class name that the first diffusers releases wrote, and its first weights without safetensors."""
    transformer = theirs()
    transformer.save_pretrained(tmp_path / "transformer", safe_serialization=False)
    (tmp_path / "model_index.json").write_text("{}")
    edit(tmp_path / "transformer" / "config.json", _class_name="Transformer2DModel", norm_num_groups=32)
    assert_computes(load_pretrained(tmp_path), transformer)


def test_our_own_transformer_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model = small()
    to_diffusers(model).save_pretrained(tmp_path)
    assert_same(load_pretrained(tmp_path), model)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    save_file(small().state_dict(), tmp_path / "model.safetensors")
    torch.manual_seed(4)
    before = torch.random.get_rng_state()
    load_pretrained(tmp_path / "model.safetensors", num_heads=4)
    assert torch.equal(torch.random.get_rng_state(), before)
