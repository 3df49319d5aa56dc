"""Weights from files: the official release's, diffusers', one's own. The network's shape is read off the tensors.

Only tensors and `argparse.Namespace` (which the official training checkpoints hold) are unpickled, and no code that a
folder brings along is run.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.dit import SIZES, DiTConfig
from models.registry import configure

if TYPE_CHECKING:
    from torch import Tensor

    from models.transformer import DiT

OFFICIAL = ("DiT-XL/2-256", "DiT-XL/2-512")
DIFFUSERS_CLASSES = ("DiTTransformer2DModel", "OfficialDiTTransformer2DModel", "Transformer2DModel")
DIFFUSERS_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
ACCEPTED = (
    f"{', '.join(OFFICIAL)}, a .pt, .pth or .safetensors file, "
    "or the folder of a DiTPipeline or a DiTTransformer2DModel"
)


def load_pretrained(name_or_path: str | Path, offline: bool = False, num_heads: int | None = None) -> DiT:
    """A DiT with weights from a file, in evaluation mode, float32, on the CPU.

    Args:
        name_or_path: `DiT-XL/2-256` or `DiT-XL/2-512`, the authors' checkpoints; a .pt or .pth file of the official
            layout (a state dict, or a training checkpoint, whose `ema` is taken); a .safetensors file of the same
            names, such as a run's checkpoints/ema-*.safetensors; or a folder that diffusers saved.
        offline: never fetch a checkpoint that is not in the cache.
        num_heads: attention heads, which leave no trace in the tensors; default: those of the paper's model of the
            same width, or what diffusers' configuration says.

    The last row of the label table is taken as the null label of guidance. Of a diffusers model the weights are
    taken, and the timestep frequencies and norms are the official code's.

    Raises:
        ValueError: not a checkpoint, one that would run code, or tensors that are missing, unexpected, or of shapes
            that do not fit; one line that names the file and the keys.
        OSError: no such file, or it cannot be read or fetched.
    """
    path = _locate(name_or_path, offline)
    try:
        if path.is_dir():
            weights, num_heads = _read_folder(path, num_heads)
        elif path.suffix in (".pt", ".pth"):
            weights = _state_dict(_read_pickle(path))
        elif path.suffix == ".safetensors":
            weights = _read_safetensors(path)
        else:
            raise ValueError(f"a {path.suffix or 'nameless'} file is none of the accepted: {ACCEPTED}")
        return _build(infer_architecture(weights, num_heads), weights)
    except ValueError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None


def infer_architecture(weights: dict[str, Tensor], num_heads: int | None = None) -> DiTConfig:
    """The architecture whose tensors these are, by their names and shapes.

    Raises:
        ValueError: no architecture has them, or `num_heads` is needed and not given.
    """
    for key in weights:
        if key.startswith("transformer_blocks."):
            raise ValueError("names of diffusers; give the folder that has its config.json")
    hidden_size, in_channels, patch_size, _ = _shape(weights, "x_embedder.proj.weight", 4)
    _, num_tokens, _ = _shape(weights, "pos_embed", 3)
    grid_size = math.isqrt(num_tokens)
    if grid_size**2 != num_tokens:
        raise ValueError(f"pos_embed: {num_tokens} positions are no square grid")
    out_features, _ = _shape(weights, "final_layer.linear.weight", 2)
    out_channels = out_features / patch_size**2
    if out_channels not in (in_channels, 2 * in_channels):
        raise ValueError(
            f"final_layer.linear.weight: {out_features} outputs; {in_channels} channels of {patch_size} x {patch_size} "
            f"patches need {in_channels * patch_size**2}, or twice as many with a learned variance"
        )
    label_rows, _ = _shape(weights, "y_embedder.embedding_table.weight", 2)
    _, frequencies = _shape(weights, "t_embedder.mlp.0.weight", 2)
    mlp_width, _ = _shape(weights, "blocks.0.mlp.fc1.weight", 2)
    return configure(
        "DiT",
        block=_block_design(weights, hidden_size),
        in_channels=in_channels,
        num_classes=label_rows - 1,
        learn_sigma=out_channels != in_channels,
        depth=_count(weights, "blocks"),
        hidden_size=hidden_size,
        num_heads=num_heads or _num_heads(hidden_size),
        patch_size=patch_size,
        input_size=grid_size * patch_size,
        mlp_ratio=_mlp_ratio(mlp_width, hidden_size),
        frequency_embedding_size=frequencies,
    )


def _shape(weights: dict[str, Tensor], key: str, dimensions: int) -> tuple[int, ...]:
    if key not in weights:
        raise ValueError(f"not the weights of a DiT: {key} is missing; it has {_listed(weights)}")
    shape = tuple(weights[key].shape)
    if len(shape) != dimensions or 0 in shape:
        raise ValueError(f"{key}: shape {shape}, expected {dimensions} dimensions")
    return shape


def _count(weights: dict[str, Tensor], prefix: str) -> int:
    """How many blocks there are by the highest number; a gap shows later as missing keys."""
    numbers = [re.match(rf"{prefix}\.(\d+)\.", key) for key in weights]
    return 1 + max((int(match[1]) for match in numbers if match), default=-1)


def _block_design(weights: dict[str, Tensor], hidden_size: int) -> str:
    if "condition.t_block.1.weight" in weights:
        return "adaln-single"
    if "blocks.0.cross_attn.q.weight" in weights:
        return "cross-attention"
    if "blocks.0.adaLN_modulation.1.weight" in weights:
        rows, _ = _shape(weights, "blocks.0.adaLN_modulation.1.weight", 2)
        designs = {6 * hidden_size: "adaln-zero", 4 * hidden_size: "adaln"}
        if rows not in designs:
            accepted = " or ".join(f"{size} ({name})" for size, name in designs.items())
            raise ValueError(f"blocks.0.adaLN_modulation.1.weight: {rows} rows, expected {accepted}")
        return designs[rows]
    if "blocks.0.norm1.weight" in weights:
        return "in-context"
    raise ValueError(
        "no block design has these tensors: one of condition.t_block, blocks.0.cross_attn, blocks.0.adaLN_modulation, "
        "blocks.0.norm1 is expected"
    )


def _num_heads(hidden_size: int) -> int:
    heads = {width: heads for _, width, heads in SIZES.values()}
    if hidden_size not in heads:
        widths = ", ".join(str(width) for width in heads)
        raise ValueError(f"num_heads: the tensors do not show it, and width {hidden_size} is not {widths}; give it")
    return heads[hidden_size]


def _mlp_ratio(mlp_width: int, hidden_size: int) -> float:
    """The ratio r with int(hidden_size * r) = mlp_width."""
    ratio = mlp_width / hidden_size
    return ratio if int(hidden_size * ratio) == mlp_width else math.nextafter(ratio, math.inf)


def _build(arch: DiTConfig, weights: dict[str, Tensor]) -> DiT:
    import torch

    from models.transformer import DiT

    with torch.device("meta"):  # no time is spent on initial values
        model = DiT(arch)
    expected = model.state_dict()
    problems = []
    if missing := expected.keys() - weights.keys():
        problems.append(f"missing {_listed(missing)}")
    if unexpected := weights.keys() - expected.keys():
        problems.append(f"unexpected {_listed(unexpected)}")
    for key in sorted(expected.keys() & weights.keys()):
        if expected[key].shape != weights[key].shape:
            problems.append(f"{key} has shape {tuple(weights[key].shape)}, expected {tuple(expected[key].shape)}")
            break
    if problems:
        sizes = f"depth {arch.depth}, width {arch.hidden_size}"
        raise ValueError(f"not the weights of an {arch.block} DiT of {sizes}: {'; '.join(problems)}")
    # Copies: safetensors' own tensors are mapped from the file.
    model.load_state_dict({k: w.to(torch.float32, copy=True) for k, w in weights.items()}, strict=True, assign=True)
    return model.eval()


def _listed(keys: Iterable[str]) -> str:
    """The first three of some keys, and how many more there are."""
    ordered = sorted(keys)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return f"{', '.join(ordered[:3]) or 'no tensors'}{more}"


def _locate(name_or_path: str | Path, offline: bool) -> Path:
    if str(name_or_path) in OFFICIAL:
        from models.assets import locate

        return locate(str(name_or_path), offline)
    path = Path(name_or_path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; accepted: {ACCEPTED}")
    return path


def _state_dict(content: Any) -> dict[str, Tensor]:
    """The state dict of a file's content: itself, or a training checkpoint's EMA weights."""
    from torch import Tensor

    if isinstance(content, dict) and isinstance(content.get("ema"), dict):
        content = content["ema"]
    if not isinstance(content, dict):
        raise ValueError(f"holds a {type(content).__name__}, expected a state dict or a checkpoint with one in `ema`")
    for key, value in content.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise ValueError(f"{key}: not a tensor of floats; expected a state dict or a checkpoint with one in `ema`")
    return {str(key): value for key, value in content.items()}


def _read_pickle(path: Path) -> Any:
    from argparse import Namespace

    import torch

    try:
        with torch.serialization.safe_globals([Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged pickles fail in any way
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise ValueError(f"refused: it would run {code[1]}; only tensors are read from pickles") from None
        raise ValueError("not a whole file of torch.save") from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"not a whole safetensors file ({error})") from None


def _read_folder(folder: Path, num_heads: int | None) -> tuple[dict[str, Tensor], int]:
    """State dict in our layout and number of heads of a DiTPipeline's or DiTTransformer2DModel's folder."""
    from models.diffusers_weights import state_dict_from_diffusers
    from models.layers import position_table

    if (folder / "model_index.json").exists():
        folder = folder / "transformer"
    if not (folder / "config.json").exists():
        raise ValueError(f"no config.json or model_index.json in the folder; accepted: {ACCEPTED}")
    config = _read_json(folder / "config.json")
    _check_config(config)
    heads, depth, side, patch_size = (
        config[key] for key in ("num_attention_heads", "num_layers", "sample_size", "patch_size")
    )
    if num_heads not in (None, heads):
        raise ValueError(f"num_heads: {num_heads}, but {folder.name}/config.json: num_attention_heads is {heads}")
    weights = _read_diffusers_weights(folder)
    if "pos_embed.pos_embed" not in weights:  # diffusers computes the position table instead of storing it
        weights["pos_embed.pos_embed"] = position_table(heads * config["attention_head_dim"], side // patch_size)
    return state_dict_from_diffusers(weights, depth), heads


def _check_config(config: dict[str, Any]) -> None:
    """Refuse configurations of other networks, and of what the official network does not have."""
    accepted: dict[str, tuple[object, ...]] = {
        "_class_name": DIFFUSERS_CLASSES,
        "norm_type": ("ada_norm_zero", "ada_norm_zero_official_frequencies"),
        "activation_fn": ("gelu-approximate",),
    }
    for key, values in accepted.items():
        if config.get(key) not in values:
            raise ValueError(
                f"config.json: {key} is {config.get(key)!r}, accepted: {', '.join(str(value) for value in values)}"
            )
    for key in ("num_attention_heads", "attention_head_dim", "num_layers", "sample_size", "patch_size"):
        if not isinstance(config.get(key), int) or config[key] < 1:
            raise ValueError(f"config.json: {key} is {config.get(key)!r}, expected a positive whole number")


def _read_diffusers_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of diffusion_pytorch_model.*, in one file or in shards that an index lists."""
    for name in DIFFUSERS_FILES:
        read = _read_safetensors if name.endswith(".safetensors") else lambda path: _state_dict(_read_pickle(path))
        if (folder / name).exists():
            return read(folder / name)
        index = folder / f"{name}.index.json"
        if index.exists():
            shards = sorted(set(_read_json(index).get("weight_map", {}).values()))
            return {key: tensor for shard in shards for key, tensor in read(folder / Path(shard).name).items()}
    raise ValueError(f"no weights in {folder.name}/; expected one of {', '.join(DIFFUSERS_FILES)}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name}: not a JSON object")
    return content
