"""Weights from files: the official release's, diffusers', one's own. The network's shape is read off the tensors.

What a file says of itself beside its tensors is compared with them (`models.files.checkpoint_facts`). Nothing that it
brings along is run (`models.files.tensor_files`).
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.dit import SIZES, DiTConfig
from models.files.checkpoint_facts import PROJECTORS, check_network, check_objective, check_sizes, facts_in, heads_in
from models.registry import configure

if TYPE_CHECKING:
    from torch import Tensor

    from models.transformer import DiT

log = logging.getLogger(__name__)

OFFICIAL = ("DiT-XL/2-256", "DiT-XL/2-512")
DIFFUSERS_CLASSES = ("DiTTransformer2DModel", "OfficialDiTTransformer2DModel", "Transformer2DModel")
DIFFUSERS_PIPELINES = ("DiTPipeline",)
DIFFUSERS_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
# Of a training checkpoint without an average: where its weights are.
TRAINED = ("state_dict", "model_state_dict", "model")
MOST_PATCHES = 512  # a side, of a position table that is computed
# (a tensor's name, its dimensions) -> whose it is, of networks of the other families.
OF_FAMILIES = {
    ("x_embedder.proj.weight", 5): "a VideoDiT",
    ("positions", 3): "a U-ViT",
    ("conv_in.weight", 4): "a U-Net",
}
# What names of tensors have in them -> the model option that they come from, of which tensors do not show everything.
OF_OPTIONS = {
    "attn.q_norm.": "qk_norm",
    "x_embedder.expand.": "patch_bottleneck",
    "class_positions": "class_tokens",
    "rotation": "positions",
    "y_embedder.null_caption": "caption_tokens",
    "windows": "window_size",
}
ACCEPTED = (
    f"{', '.join(OFFICIAL)}, a .pt, .pth or .safetensors file, "
    "or the folder of a DiTPipeline or a DiTTransformer2DModel"
)


def load_pretrained(
    name_or_path: str | Path,
    offline: bool = False,
    num_heads: int | None = None,
    accept: Callable[[Mapping[str, Any]], object] = check_objective,
) -> DiT:
    """A DiT with weights from a file, in evaluation mode, float32, on the CPU.

    Args:
        name_or_path: `DiT-XL/2-256` or `DiT-XL/2-512`, the authors' checkpoints; a .pt or .pth file of the official
            layout (a state dict, or a training checkpoint, whose `ema` is taken if it has one); a .safetensors file of
            the same names, such as a run's checkpoints/ema-*.safetensors; or a folder that diffusers saved.
        offline: never fetch a checkpoint that is not in the cache.
        num_heads: attention heads, which leave no trace in the tensors; default: those of the paper's model of the
            same width, or what diffusers' configuration says.
        accept: is told what the file says of itself, before anything is built, and raises ValueError to refuse it;
            default: another objective than the official DiT's is refused.

    The last row of the label table is taken as the null label of guidance. Of a diffusers model the weights are
    taken, and the timestep frequencies and norms are the official code's. Of REPA's checkpoints the projectors are
    ignored, with a warning.

    Raises:
        ValueError: not a checkpoint, one that would run code, that is damaged, quantised or not finite, that says that
            it is something else, or tensors that are missing, unexpected, or of shapes that do not fit; one line that
            names the file and the keys.
        OSError: no such file, or it cannot be read or fetched.
    """
    path = _locate(name_or_path, offline)
    try:
        if path.is_dir():
            weights, facts = _read_folder(path, num_heads)
        elif path.suffix in (".pt", ".pth", ".safetensors"):
            weights, facts = _read_file(path)
        else:
            raise ValueError(f"a {path.suffix or 'nameless'} file is none of the accepted: {ACCEPTED}")
        accept(facts)
        check_network(facts)
        model = _build(infer_architecture(weights, num_heads or heads_in(facts)), weights)
        check_sizes(facts, model.arch)
        return model
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
    for (key, dimensions), network in OF_FAMILIES.items():
        if key in weights and weights[key].dim() == dimensions:
            raise ValueError(f"{key}: of {network}, not of a DiT; accepted: such weights in their run's folder")
    for part, option in OF_OPTIONS.items():
        if key := next((key for key in weights if part in key), None):
            raise ValueError(f"{key}: of a DiT with the option {option}; accepted: such weights in their run's folder")
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
        from models.files.assets import locate

        return locate(str(name_or_path), offline)
    path = Path(name_or_path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; accepted: {ACCEPTED}")
    return path


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file, finite floats all, and what it says beside them; of a training checkpoint the EMA's.

    The names are those of the network itself, and REPA's projectors are not among them.
    """
    from models.files.tensor_files import HEADER, check_finite, check_floats, read_pickle, read_safetensors

    if path.suffix == ".safetensors":
        content, metadata = read_safetensors(path)
        own = json.loads(metadata.get(HEADER, "{}"))  # a dict of texts: `read_safetensors` has compared its checksum
        facts = facts_in({**metadata, HEADER: json.loads(own.get("recipe", "{}"))})
    else:
        content = read_pickle(path)
        facts = facts_in(content)
    content = _network_in(content, path)
    expected = f"expected a state dict or a checkpoint with one in `ema` or {', '.join(f'`{key}`' for key in TRAINED)}"
    if not isinstance(content, dict):
        raise ValueError(f"holds a {type(content).__name__}, {expected}")
    try:
        check_floats(content)
    except ValueError as error:
        raise ValueError(f"{error}; {expected}") from None
    check_finite(content)
    weights = _without_prefix({str(key): value for key, value in content.items()})
    ignored = [key for key in weights if key.startswith(PROJECTORS.removesuffix("*"))]
    if ignored:
        log.warning("%s: %s: %d tensors ignored, which sampling does not need", path, PROJECTORS, len(ignored))
        facts[PROJECTORS] = len(ignored)
    return {key: value for key, value in weights.items() if key not in ignored}, facts


def _network_in(content: Any, path: Path) -> Any:
    """Of a training checkpoint the average of the weights; without one, with a warning, what is trained."""
    if not isinstance(content, dict):
        return content
    dicts = {key: value for key, value in content.items() if isinstance(value, dict)}
    networks = [key for key, value in dicts.items() if key == "ema" or _has_tensors(value)]
    averages = [key for key in networks if "ema" in str(key).lower()]
    if len(averages) > 1:
        raise ValueError(f"has the averages {', '.join(averages)}; accepted: one, in a file of its own")
    if averages:
        return content[averages[0]]
    for key in TRAINED:
        if key in networks:
            if key != "state_dict":  # may be anything, an average too
                log.warning("%s: has no averaged weights (`ema`); those of `%s` are taken", path, key)
            return content[key]
    return content


def _has_tensors(content: dict[Any, Any]) -> bool:
    import torch

    return any(isinstance(value, torch.Tensor) for value in content.values())


def _without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without what wrappers put before them, such as `module.`; of an average among several networks its own."""
    first = "x_embedder.proj.weight"
    prefixes = [key.removesuffix(first) for key in weights if key.endswith(f".{first}")]
    if first in weights or not prefixes:
        return weights
    averages = [prefix for prefix in prefixes if "ema" in prefix.lower()] if len(prefixes) > 1 else prefixes
    if len(averages) != 1:
        raise ValueError(f"has several networks: {', '.join(prefixes)}; accepted: one, or one average (ema) among them")
    others = tuple(prefix for prefix in prefixes if prefix not in averages)
    own = {key: value for key, value in weights.items() if not others or not key.startswith(others)}
    return {key.removeprefix(averages[0]): value for key, value in own.items()}


def _read_folder(folder: Path, num_heads: int | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict in our layout and the configurations of a DiTPipeline's or DiTTransformer2DModel's folder."""
    from models.diffusers_weights import state_dict_from_diffusers
    from models.layers import position_table

    facts: dict[str, Any] = {}
    if (folder / "model_index.json").exists():
        pipeline = _read_json(folder / "model_index.json").get("_class_name")
        if pipeline not in (None, *DIFFUSERS_PIPELINES):
            raise ValueError(
                f"model_index.json: _class_name is {pipeline!r}, accepted: {', '.join(DIFFUSERS_PIPELINES)}"
            )
        scheduler = folder / "scheduler" / "scheduler_config.json"
        if scheduler.exists():  # samplers here have a process of their own, which has to be the pipeline's
            facts |= facts_in(_read_json(scheduler), "scheduler/scheduler_config.json")
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
    if depth > len(weights):  # before as many names are made
        raise ValueError(f"config.json: num_layers is {depth}, but there are {len(weights)} tensors")
    if "pos_embed.pos_embed" not in weights:  # diffusers computes the position table instead of storing it
        dim = heads * config["attention_head_dim"]
        if side // patch_size > MOST_PATCHES or dim > max(tensor.numel() for tensor in weights.values()):
            raise ValueError(f"config.json: sample_size {side} and width {dim}; accepted: those of the tensors")
        weights["pos_embed.pos_embed"] = position_table(dim, side // patch_size)
    return state_dict_from_diffusers(weights, depth), facts | facts_in(config, "config.json")


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
        value = config.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"config.json: {key} is {value!r}, expected a positive whole number")
    if config["sample_size"] < config["patch_size"]:
        raise ValueError(f"config.json: sample_size is {config['sample_size']}, less than patch_size")


def _read_diffusers_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of diffusion_pytorch_model.*, in one file or in shards that an index lists."""
    for name in DIFFUSERS_FILES:
        if (folder / name).exists():
            return _read_part(folder / name)
        if (folder / f"{name}.index.json").exists():
            return _read_shards(folder, f"{name}.index.json")
    raise ValueError(f"no weights in {folder.name}/; expected one of {', '.join(DIFFUSERS_FILES)}")


def _read_shards(folder: Path, index: str) -> dict[str, Tensor]:
    """The tensors of the files that an index names, every one from the file that it is said to be in."""
    places = _read_json(folder / index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise ValueError(f"{index}: weight_map: not a JSON object of tensors' names and files' names")
    weights: dict[str, Tensor] = {}
    for shard in sorted(set(places.values())):
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise ValueError(f"{index}: weight_map: {shard!r}: no such file beside it")
        tensors = _read_part(folder / shard)
        differing = tensors.keys() ^ {key for key, place in places.items() if place == shard}
        if differing:
            raise ValueError(f"{index}: weight_map: does not say what {shard} holds: {_listed(differing)}")
        weights |= tensors
    return weights


def _read_part(path: Path) -> dict[str, Tensor]:
    try:
        return _read_file(path)[0]
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name}: not a JSON object")
    return content
