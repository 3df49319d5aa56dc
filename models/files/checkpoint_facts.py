"""What a checkpoint says of itself beside its tensors: read, and refused where it is not what is assumed here.

Assumed is the official DiT: noise is predicted, in 1000 steps with linear betas, and the last label is the null label
of guidance. Tensors show none of that: a flow-matching SiT has the very same ones. So what the training script wrote
beside them (`args`, a configuration, a safetensors header, diffusers' config.json) is asked. Another objective than
assumed is refused here; who can sample it reads what it is from the same facts. Imports no torch.
"""

from __future__ import annotations

import math
import re
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any

from models.dit import DiTConfig

NOISE = ("noise", "eps", "epsilon", "pred_noise", "pred_eps")
# Key -> what may stand there, beside null; words in lower case. Of the objective:
ASSUMED: dict[str, tuple[object, ...]] = {
    **dict.fromkeys(("prediction", "prediction_type", "pred_type", "parameterization"), NOISE),
    **dict.fromkeys(("model_mean_type", "objective"), (*NOISE, "iddpm", "ddpm", "diffusion")),
    **dict.fromkeys(("path_type", "interpolant", "interpolant_type", "transport", "transport_type", "flow_type"), ()),
    **dict.fromkeys(("noise_schedule", "beta_schedule"), ("linear",)),
    **dict.fromkeys(("diffusion_steps", "num_train_timesteps", "train_timesteps", "num_timesteps"), (1000,)),
    "beta_start": (1e-4,),
    "beta_end": (0.02,),
    "trained_betas": (),
    **dict.fromkeys(
        ("v_prediction", "v_pred", "predict_v", "predict_velocity", "predict_xstart", "predict_x0", "pred_x0"), (False,)
    ),
    **dict.fromkeys(("flow_matching", "rectified_flow", "use_flow", "rescale_betas_zero_snr"), (False,)),
}
# Of the network, where tensors do not show it.
ASSUMED_NETWORK: dict[str, tuple[object, ...]] = {
    **dict.fromkeys(("use_rope", "use_rmsnorm", "norm_elementwise_affine", "only_cross_attention"), (False,)),
    **dict.fromkeys(("num_vector_embeds", "cross_attention_dim", "caption_channels", "quantization_config"), ()),
    "attention_bias": (True,),
    "norm_eps": (1e-5, 1e-6),  # diffusers' default, which its first conversions kept, and the official code's
}
# Key -> the attribute of the architecture that it is compared with.
SIZES = {
    "learn_sigma": "learn_sigma",
    "in_channels": "in_channels",
    "out_channels": "out_channels",
    "patch_size": "patch_size",
    "hidden_size": "hidden_size",
    "depth": "depth",
    "num_layers": "depth",
    "num_heads": "num_heads",
    "num_attention_heads": "num_heads",
    "mlp_ratio": "mlp_ratio",
    "input_size": "input_size",
    "latent_size": "input_size",
    "sample_size": "input_size",
    "frequency_embedding_size": "frequency_embedding_size",
}
CLASSES = ("num_classes", "n_classes", "num_embeds_ada_norm")
DROPOUT = ("class_dropout_prob", "class_dropout", "label_dropout", "cfg_dropout", "cfg_prob")
PIXELS = ("image_size", "resolution")
NETWORKS = ("model", "model_name", "model_type", "arch", "architecture")
# Parts of a configuration that are of something else than the network and its objective.
OTHERS = ("vae", "autoencoder", "first_stage", "tokenizer", "data", "dataset", "opt", "optim", "optimizer", "ema")
# Of REPA (arXiv 2410.06940): heads that align features in training, and that sampling does not compute.
PROJECTORS = "projectors.*"
WHOLE = ("quantization_config",)  # is there or not, whatever it says
DEEPEST = 6


def facts_in(content: Any, where: str = "") -> dict[str, Any]:
    """`args.prediction` -> "velocity": what nested mappings and namespaces say, without tensors."""
    return dict(_facts(content, where, 0))


def _facts(content: Any, where: str, level: int) -> Iterator[tuple[str, Any]]:
    content = vars(content) if isinstance(content, Namespace) else content
    if not isinstance(content, Mapping) or key_of(where) in WHOLE:
        if where and (content is None or isinstance(content, (str, int, float, list, tuple, Mapping))):
            yield where, content
    elif level < DEEPEST:
        for key, value in content.items():
            if isinstance(key, str) and key.lower() not in OTHERS:
                yield from _facts(value, f"{where}.{key}" if where else key, level + 1)


def heads_in(facts: Mapping[str, Any]) -> int | None:
    """The number of attention heads, which tensors do not show; None if it does not say.

    Raises:
        ValueError: it is no number.
    """
    for name, value in facts.items():
        if SIZES.get(key_of(name)) == "num_heads" and value is not None:
            number = _number(value)
            if number is None or not number.is_integer() or number < 1:
                raise ValueError(f"{name} is {value!r}, expected a positive whole number")
            return int(number)
    return None


def check_objective(facts: Mapping[str, Any]) -> None:
    """Compare what a checkpoint says of its objective with what is assumed.

    Raises:
        ValueError: all facts that are otherwise.
    """
    others = [f"{name} is {value!r}" for name, value in facts.items() if not is_assumed(key_of(name), value)]
    is_dit = any(key_of(name) in NETWORKS and network_of(value) == "dit" for name, value in facts.items())
    if PROJECTORS in facts and not is_dit:
        others.append(f"it has {PROJECTORS}, as REPA's SiT")
    if others:
        raise ValueError(f"{', '.join(others)}: accepted are weights of a DiT that predicts noise")


def check_network(facts: Mapping[str, Any]) -> None:
    """Compare what a checkpoint says of its network with what is assumed: a DiT's, which a SiT's is too.

    Raises:
        ValueError: all facts that are otherwise.
    """
    others = [f"{name} is {value!r}" for name, value in facts.items() if not _is_network(key_of(name), value)]
    if others:
        raise ValueError(f"{', '.join(others)}: accepted are weights of a DiT or a SiT that has a null label")


def network_of(value: Any) -> str | None:
    """`dit` or `sit`, as in "DiT-XL/2" or "models.SiT_XL_2"; None if it is neither, or says nothing."""
    found = re.search(r"(?:^|[./:\\])(dit|sit)", str(value), re.IGNORECASE)
    return found[1].lower() if found else None


def is_assumed(key: str, value: Any) -> bool:
    """Whether a fact is as of the official DiT, or not of the objective at all."""
    if value is None:
        return True
    if key in ASSUMED:
        return any(_equal(value, accepted) for accepted in ASSUMED[key])
    if key in NETWORKS and isinstance(value, str):
        return network_of(value) == "dit"
    return key != "_class_name" or "flow" not in str(value).lower()


def _is_network(key: str, value: Any) -> bool:
    if value is None:
        return True
    if key in ASSUMED_NETWORK:
        return any(_equal(value, accepted) for accepted in ASSUMED_NETWORK[key])
    if key in NETWORKS and isinstance(value, str):
        return network_of(value) is not None
    return key not in DROPOUT or (_number(value) or 0) > 0  # without it there is no null label


def check_sizes(facts: Mapping[str, Any], arch: DiTConfig) -> None:
    """Compare what a checkpoint says of its sizes with its tensors'.

    Raises:
        ValueError: the first fact that is otherwise.
    """
    for name, value in facts.items():
        key = key_of(name)
        if value is None:
            continue
        if key in SIZES and not _equal(value, ours := getattr(arch, SIZES[key])):
            raise ValueError(f"{name} is {value!r}, but its tensors are of {SIZES[key]} {ours}")
        if key == "attention_head_dim" and not _equal(value, arch.hidden_size // arch.num_heads):
            raise ValueError(
                f"{name} is {value!r}, but {arch.num_heads} heads of its tensors are {arch.hidden_size} wide"
            )
        if key in PIXELS and (pixels := _number(value)) is not None and not _divides(arch.input_size, pixels):
            raise ValueError(f"{name} is {value!r}, which is no multiple of the {arch.input_size} positions a side")
        if key in CLASSES:
            _check_classes(name, value, arch.num_classes + 1)


def _check_classes(name: str, value: Any, rows: int) -> None:
    table = "y_embedder.embedding_table.weight"
    if _equal(value, rows):
        raise ValueError(
            f"{name} is {value!r} and {table} has as many rows: the model has no null label, which is needed"
        )
    if not _equal(value, rows - 1):
        raise ValueError(f"{name} is {value!r}, but {table} has {rows} rows; accepted: {rows - 1} and the null label")


def key_of(name: str) -> str:
    """`num_classes` of "args.model.num_classes"."""
    return name.rpartition(".")[2].lower()


def _number(value: Any) -> float | None:
    """A number, also where it is written as text, as in a safetensors header."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _divides(side: int, pixels: float) -> bool:
    return math.isfinite(pixels) and pixels >= side and pixels % side == 0


def _equal(value: Any, accepted: object) -> bool:
    if isinstance(accepted, str):
        return str(value).lower().rpartition(".")[2] == accepted
    if isinstance(accepted, bool):  # a flag may be 0 or 1
        return value == accepted or str(value).lower() == str(accepted).lower()
    number = _number(value)
    if number is None or not isinstance(accepted, (int, float)):
        return False
    if isinstance(accepted, int):  # 1000 classes and the 1001 rows of their table are not the same
        return number == accepted
    return math.isclose(number, accepted, rel_tol=1e-3)
