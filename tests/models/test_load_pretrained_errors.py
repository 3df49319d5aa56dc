"""What `load_pretrained` refuses: one line that names the file and the keys, and nothing in a file is executed."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_models import small, theirs
from safetensors.torch import save_file
from torch import Tensor

from bench.files import checkpoint
from models import load_pretrained
from models.diffusers_weights import to_diffusers


def refused(path: str | Path, *parts: str, error: type[Exception] = ValueError, **options: Any) -> None:
    """One line that names the file and each of `parts`."""
    with pytest.raises(error) as caught:
        load_pretrained(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), *parts):
        assert part in message


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_nothing_there(tmp_path: Path) -> None:
    refused(tmp_path / "none.pt", "no such file", "DiT-XL/2-512", ".safetensors", error=FileNotFoundError)
    refused("DiT-B/4", "no such file", error=FileNotFoundError)
    (tmp_path / "weights.ckpt").touch()
    refused(tmp_path / "weights.ckpt", "a .ckpt file", ".pth")


def test_the_width_says_nothing_of_the_heads(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "model.pt")
    refused(tmp_path / "model.pt", "num_heads", "width 32", "384, 768, 1024, 1152")
    refused(tmp_path / "model.pt", "num_heads: 5 does not divide", num_heads=5)


class Malicious:
    """Unpickled, it makes a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (self.trace,)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "folder"])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, name: str, zipped: bool) -> None:
    trace = tmp_path / "trace"
    content = {"ema": small().state_dict(), "args": Malicious(trace)}
    path = tmp_path / name
    if name == "folder":
        theirs().save_pretrained(path)
        (path / "diffusion_pytorch_model.safetensors").unlink()
    file = path / "diffusion_pytorch_model.bin" if name == "folder" else path
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    refused(path, "mkdir", "only tensors", num_heads=4)
    assert not trace.exists()
    torch.load(file, weights_only=False)  # it would have
    assert trace.exists()


def test_a_namespace_is_not_a_way_in(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"ema": small().state_dict(), "args": argparse.Namespace(x=Malicious(trace))}, tmp_path / "model.pt")
    refused(tmp_path / "model.pt", "mkdir", num_heads=4)
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"weights", pickle.dumps({"a": 1}), b"PK\x03\x04 not a zip"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(content)
    refused(path, num_heads=4)


def test_truncated_files(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "model.pt")
    save_file(small().state_dict(), tmp_path / "model.safetensors")
    for path in (tmp_path / "model.pt", tmp_path / "model.safetensors"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        refused(path, "not a whole", num_heads=4)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ([1, 2], ("holds a list", "ema")),
        ({"model": {}, "epoch": 3}, ("model: not a tensor", "ema")),
        ({"ema": {"weight": "x"}}, ("weight: not a tensor",)),
        ({"pos_embed": torch.zeros(1, dtype=torch.int64)}, ("pos_embed: not a tensor of floats",)),
        ({"fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}, ("x_embedder.proj.weight is missing", "fc.bias")),
        ({}, ("x_embedder.proj.weight is missing", "no tensors")),
    ],
)
def test_contents_that_are_not_weights_of_a_dit(tmp_path: Path, content: Any, parts: tuple[str, ...]) -> None:
    torch.save(content, tmp_path / "model.pt")
    refused(tmp_path / "model.pt", *parts, num_heads=4)


def test_names_of_diffusers_in_a_single_file(tmp_path: Path) -> None:
    theirs().save_pretrained(tmp_path)
    refused(tmp_path / "diffusion_pytorch_model.safetensors", "give the folder")


def altered(tmp_path: Path, change: Callable[[dict[str, Tensor]], object], block: str = "adaln-zero") -> Path:
    state = dict(small(block).state_dict())
    change(state)
    torch.save(state, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_missing_and_unexpected_tensors_are_named(tmp_path: Path) -> None:
    path = altered(tmp_path, lambda state: state.pop("blocks.1.attn.qkv.bias"))
    refused(path, "missing blocks.1.attn.qkv.bias", "adaln-zero", "depth 2", num_heads=4)
    path = altered(tmp_path, lambda state: state.update(extra=torch.zeros(1)))
    refused(path, "unexpected extra", num_heads=4)
    path = altered(tmp_path, lambda state: [state.pop(key) for key in list(state) if key.startswith("blocks.0.attn")])
    refused(path, "missing blocks.0.attn.proj.bias", "and 1 more", num_heads=4)
    path = altered(tmp_path, lambda state: state.update({"blocks.5.mlp.fc1.bias": torch.zeros(1)}))
    refused(path, "depth 6", "missing blocks.2.", num_heads=4)


@pytest.mark.parametrize("key", sorted(small().state_dict()))
def test_every_tensor_is_needed(tmp_path: Path, key: str) -> None:
    refused(altered(tmp_path, lambda state: state.pop(key)), num_heads=4)


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("blocks.1.mlp.fc2.weight", (32, 64), r"blocks.1.mlp.fc2.weight has shape \(32, 64\), expected \(32, 128\)"),
        ("blocks.0.adaLN_modulation.1.weight", (160, 32), r"160 rows, expected 192 \(adaln-zero\) or 128 \(adaln\)"),
        ("pos_embed", (1, 15, 32), "15 positions are no square grid"),
        ("pos_embed", (16, 32), r"pos_embed: shape \(16, 32\), expected 3 dimensions"),
        ("final_layer.linear.weight", (24, 32), "final_layer.linear.weight: 24 outputs.*need 16, or twice"),
        ("x_embedder.proj.weight", (32, 4, 2, 1), "x_embedder.proj.weight has shape"),
        ("y_embedder.embedding_table.weight", (1, 32), "num_classes: 0 is not positive"),
    ],
)
def test_shapes_that_do_not_fit(tmp_path: Path, key: str, shape: tuple[int, ...], message: str) -> None:
    path = altered(tmp_path, lambda state: state.update({key: torch.zeros(shape)}))
    with pytest.raises(ValueError, match=re.escape(f"{path}: ") + f".*{message}"):
        load_pretrained(path, num_heads=4)


def test_no_known_block_design(tmp_path: Path) -> None:
    def change(state: dict[str, Tensor]) -> None:
        for key in [key for key in state if "norm1" in key]:
            del state[key]

    refused(altered(tmp_path, change, "in-context"), "no block design", "blocks.0.norm1", num_heads=4)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_class_name", "PixArtTransformer2DModel"),
        ("norm_type", "layer_norm"),
        ("activation_fn", "geglu"),
        ("num_layers", None),
        ("sample_size", 0),
        ("num_attention_heads", "four"),
    ],
)
def test_configurations_of_other_networks(tmp_path: Path, key: str, value: Any) -> None:
    theirs().save_pretrained(tmp_path)
    edit(tmp_path / "config.json", **{key: value})
    refused(tmp_path, f"config.json: {key} is {value!r}")


# What a checkpoint says it is


def saved(path: Path, **beside: Any) -> Path:
    """A training checkpoint, with what stands beside its weights."""
    torch.save({"ema": small().state_dict(), **beside}, path / "model.pt")
    return path / "model.pt"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prediction", "velocity"),
        ("prediction", "score"),
        ("path_type", "Linear"),
        ("model", "SiT-XL/2"),
        ("noise_schedule", "cosine"),
        ("diffusion_steps", 4000),
        ("v_prediction", True),
        ("learn_sigma", False),
        ("patch_size", 4),
        ("in_channels", 16),
        ("hidden_size", 1152),
        ("mlp_ratio", 2.0),
        ("image_size", 60),
        ("num_classes", 8),
        ("num_classes", 1000),
        ("class_dropout_prob", 0.0),
        ("num_heads", 8),
        ("num_heads", 10**400),
        ("mlp_ratio", float("inf")),
    ],
)
def test_a_checkpoint_that_says_it_is_something_else(tmp_path: Path, key: str, value: Any) -> None:
    """All with the tensors of a DiT: sampled as one, they would give images of nothing."""
    said = f"{key} is {value!r}"
    refused(saved(tmp_path, args=argparse.Namespace(**{key: value})), f"args.{said}", num_heads=4)
    refused(saved(tmp_path, config={"network": {key: value}}), f"config.network.{said}", num_heads=4)
    save_file(small().state_dict(), tmp_path / "model.safetensors", metadata={f"modelspec.{key}": str(value)})
    refused(tmp_path / "model.safetensors", f"modelspec.{key} is '{value}'", num_heads=4)


def test_a_checkpoint_that_says_it_is_a_dit(tmp_path: Path) -> None:
    official = {"model": "DiT-XL/2", "image_size": 64, "num_classes": 7, "global_batch_size": 256}
    theirs_too = {"prediction": "noise", "diffusion_steps": 1000, "noise_schedule": "linear", "learn_sigma": True}
    others = {"vae": {"in_channels": 3, "num_classes": 10}, "optimizer": {"depth": 99}}
    args = argparse.Namespace(**official, **theirs_too, num_heads=4, class_dropout_prob=0.1, ckpt=None, **others)
    model = load_pretrained(saved(tmp_path, args=args, epoch=80))  # the heads as it says
    assert (model.arch.num_heads, model.arch.num_classes) == (4, 7)


def test_what_it_predicts_is_said_before_its_heads_are_asked_for(tmp_path: Path) -> None:
    refused(saved(tmp_path, args=argparse.Namespace(model="SiT-XL/2", prediction="velocity")), "'SiT-XL/2'")


def test_as_many_rows_as_classes_are_a_model_without_a_null_label(tmp_path: Path) -> None:
    refused(saved(tmp_path, args=argparse.Namespace(num_classes=8)), "has as many rows", "no null label", num_heads=4)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_quantised_tensors(tmp_path: Path, dtype: torch.dtype, suffix: str) -> None:
    state = {k: v.to(dtype) if k == "blocks.1.mlp.fc1.weight" else v for k, v in small().state_dict().items()}
    path = tmp_path / f"model.{suffix}"
    torch.save(state, path) if suffix == "pt" else save_file(state, path)
    refused(path, "blocks.1.mlp.fc1.weight: ", str(dtype).removeprefix("torch."), num_heads=4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "folder"])
def test_tensors_that_are_not_finite(tmp_path: Path, value: float, name: str) -> None:
    """1e300 is finite where it is stored, and infinite as float32."""
    path = tmp_path / name
    if name == "folder":
        transformer = theirs().double()
        transformer.state_dict()["transformer_blocks.1.ff.net.2.bias"][3] = value
        transformer.save_pretrained(path)
    else:
        state = {key: tensor.double() for key, tensor in small().state_dict().items()}
        state["blocks.1.mlp.fc2.bias"][3] = value
        torch.save(state, path) if name == "model.pt" else save_file(state, path)
    tensor = "safetensors: transformer_blocks.1.ff.net.2.bias" if name == "folder" else "blocks.1.mlp.fc2.bias"
    refused(path, f"{tensor}: 1 of 32 values are not finite", num_heads=4)


def test_one_number_repeated_over_any_shape_is_not_copied_into_memory(tmp_path: Path) -> None:
    state = small().state_dict() | {"pos_embed": torch.zeros(1).expand(1, 10**12, 32)}
    torch.save(state, tmp_path / "model.pt")
    assert (tmp_path / "model.pt").stat().st_size < 10**6
    refused(tmp_path / "model.pt", "pos_embed: its shape (1, 1000000000000, 32)", num_heads=4)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_flipped_byte_in_a_tensor_is_noticed(tmp_path: Path, name: str) -> None:
    """torch.load does not compare the checksums that torch.save writes."""
    path, model = tmp_path / name, small()
    if name == "model.pt":
        torch.save(model.state_dict(), path)
    else:
        checkpoint.save_tensors(path, model.state_dict())
    content = bytearray(path.read_bytes())
    content[content.index(model.state_dict()["blocks.1.mlp.fc1.weight"].numpy().tobytes()) + 50] ^= 1
    path.write_bytes(content)
    refused(path, "", num_heads=4)


# diffusers' configurations and indices


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("in_channels", 3),
        ("out_channels", 4),
        ("num_embeds_ada_norm", 8),
        ("num_embeds_ada_norm", 1000),
        ("attention_head_dim", 16),
        ("norm_elementwise_affine", True),
        ("norm_eps", 1e-2),
        ("attention_bias", False),
        ("cross_attention_dim", 768),
        ("quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    ],
)
def test_a_configuration_that_contradicts_the_tensors(tmp_path: Path, key: str, value: Any) -> None:
    to_diffusers(small()).save_pretrained(tmp_path)  # with its position table
    edit(tmp_path / "config.json", **{key: value})
    refused(tmp_path, "config.json", key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prediction_type", "v_prediction"),
        ("prediction_type", "sample"),
        ("beta_schedule", "scaled_linear"),
        ("beta_end", 0.012),
        ("num_train_timesteps", 500),
        ("trained_betas", [0.1, 0.2]),
        ("rescale_betas_zero_snr", True),
        ("_class_name", "FlowMatchEulerDiscreteScheduler"),
    ],
)
def test_a_pipeline_of_another_process(tmp_path: Path, key: str, value: Any) -> None:
    theirs().save_pretrained(tmp_path / "transformer")
    (tmp_path / "model_index.json").write_text('{"_class_name": "DiTPipeline"}')
    scheduler = tmp_path / "scheduler" / "scheduler_config.json"
    scheduler.parent.mkdir()
    said = {"_class_name": "DDIMScheduler", "prediction_type": "epsilon", "num_train_timesteps": 1000}
    scheduler.write_text(json.dumps(said | {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}))
    assert load_pretrained(tmp_path).arch.depth == 2
    edit(scheduler, **{key: value})
    refused(tmp_path, f"scheduler_config.json.{key} is {value!r}")


def test_another_pipeline(tmp_path: Path) -> None:
    theirs().save_pretrained(tmp_path / "transformer")
    (tmp_path / "model_index.json").write_text('{"_class_name": "PixArtAlphaPipeline"}')
    refused(tmp_path, "_class_name is 'PixArtAlphaPipeline'")
    (tmp_path / "model_index.json").write_text("[" * 10**5)
    refused(tmp_path, "model_index.json: not JSON")


@pytest.mark.parametrize(
    ("places", "parts"),
    [
        (None, ("weight_map: not a JSON object",)),
        (["a"], ("weight_map: not a JSON object",)),
        ("file", ("weight_map: not a JSON object",)),
        ({"pos_embed.proj.bias": 1}, ("weight_map: not a JSON object",)),
        ({"pos_embed.proj.bias": "../x.safetensors"}, ("'../x.safetensors': no such file beside it",)),
        ({"pos_embed.proj.bias": "none.safetensors"}, ("'none.safetensors': no such file beside it",)),
        ({}, ("not a DiTTransformer2DModel",)),
    ],
)
def test_indices_of_shards_that_are_none(tmp_path: Path, places: Any, parts: tuple[str, ...]) -> None:
    theirs().save_pretrained(tmp_path, max_shard_size="40KB")
    edit(tmp_path / "diffusion_pytorch_model.safetensors.index.json", weight_map=places)
    if places == {}:
        edit(tmp_path / "config.json", num_layers=1)
        parts = ("num_layers is 1, but there are 0 tensors",)
    refused(tmp_path, *parts)


def test_a_shard_that_holds_something_else_than_its_index_says(tmp_path: Path) -> None:
    theirs().save_pretrained(tmp_path, max_shard_size="40KB")
    path = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    places = json.loads(path.read_text())["weight_map"]
    first = min(places)
    edit(path, weight_map={key: place for key, place in places.items() if key != first})
    refused(tmp_path, f"does not say what {places[first]} holds: {first}")


@pytest.mark.parametrize(
    "changes",
    [{"num_layers": 10**12}, {"sample_size": 10**9}, {"attention_head_dim": 10**9}, {"num_layers": True}],
)
def test_sizes_beyond_all_memory_are_refused_at_once(tmp_path: Path, changes: dict[str, int]) -> None:
    theirs().save_pretrained(tmp_path)
    edit(tmp_path / "config.json", **changes)
    refused(tmp_path, f"config.json: {'num_layers' if 'num_layers' in changes else 'sample_size'}")


def test_folders_that_are_not_whole(tmp_path: Path) -> None:
    refused(tmp_path, "no config.json or model_index.json", "DiT-XL/2-256")
    theirs().save_pretrained(tmp_path, safe_serialization=False)
    edit(tmp_path / "config.json", num_layers=3)
    refused(tmp_path, "depth 3", "transformer_blocks.2.")
    edit(tmp_path / "config.json", num_layers=1)
    refused(tmp_path, "depth 1", "unexpected transformer_blocks.1.")
    edit(tmp_path / "config.json", num_layers=2, sample_size=8, num_attention_heads=2)
    refused(tmp_path, "pos_embed")
    edit(tmp_path / "config.json", num_attention_heads=4)
    refused(tmp_path, "num_heads: 8", "num_attention_heads is 4", num_heads=8)
    (tmp_path / "diffusion_pytorch_model.bin").unlink()
    refused(tmp_path, "no weights in")
    (tmp_path / "config.json").write_text("{")
    refused(tmp_path, "config.json: not JSON")
    (tmp_path / "config.json").write_text("[]")
    refused(tmp_path, "config.json: not a JSON object")
