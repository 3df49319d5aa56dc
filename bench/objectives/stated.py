"""What a checkpoint of others says of its objective, as the `diffusion` section of a recipe.

Flow-matching networks have the very tensors of a DiT, so only what stands beside them tells (see
`models.files.checkpoint_facts`). SiT's code (arXiv 2401.08740) counts a network's time from 0 = noise to 1 = data,
REPA's (arXiv 2410.06940) the other way round: taken for the other, samples are noise. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from bench.recipe.parts import DiffusionConfig
from models.files.checkpoint_facts import ASSUMED, NETWORKS, PROJECTORS, is_assumed, key_of, network_of
from models.weights import OFFICIAL

PREDICTION = ("prediction", "prediction_type", "pred_type", "parameterization", "model_mean_type", "objective")
PREDICTIONS = {
    **dict.fromkeys(("noise", "eps", "epsilon", "pred_noise", "pred_eps"), "noise"),
    **dict.fromkeys(("x0", "x_start", "xstart", "start_x", "pred_x0", "sample"), "x0"),
    **dict.fromkeys(("velocity", "v", "v_prediction"), "velocity"),
}
# A flag -> what is predicted where it is set.
FLAGS = {
    **dict.fromkeys(("v_prediction", "v_pred", "predict_v", "predict_velocity"), "velocity"),
    **dict.fromkeys(("predict_xstart", "predict_x0", "pred_x0"), "x0"),
}
FLOW_FLAGS = ("flow_matching", "rectified_flow", "use_flow")
PATH = ("path_type", "interpolant", "interpolant_type", "transport", "transport_type", "flow_type")
PATHS = {"linear": "linear", "gvp": "gvp", "cosine": "gvp"}
# Arguments that the training script of the one has and not the other's, and how each spells its paths.
OF_SIT, PATHS_OF_SIT = ("loss_weight", "train_eps", "sample_eps"), ("Linear", "GVP")
OF_REPA, PATHS_OF_REPA = ("proj_coeff", "enc_type", "encoder_depth", "projector_embed_dims"), ("linear", "cosine")
TIMES = "SiT's code: data-at-1, REPA's: noise-at-1"
# What files of such networks are called.
NAMED = re.compile(r"(?<![a-z])(sit(?=xl|[sbl]\d)|(sit|repa|flow|velocity)(?![a-z]))", re.IGNORECASE)

Section = dict[str, Any]


class Stated(NamedTuple):
    """The `diffusion` sections that a checkpoint may be of: one, unless it leaves open which.

    because: what says so; empty where nothing does and the official DiT's is assumed. binding: it is said beside the
    weights, not by the file's name.
    """

    sections: tuple[Section, ...]
    because: str
    binding: bool


def choose_objective(facts: Mapping[str, Any], name: str, asked: DiffusionConfig | None) -> DiffusionConfig:
    """What weights called `name` are sampled as: what they state; where they state nothing, what is asked for.

    Raises:
        ValueError: they state another than what is asked for, or leave it open and nothing is asked for; or they are of
            no objective here.
    """
    known = {**facts, "model": name} if name in OFFICIAL else facts
    sections, because, binding = stated(known, name.rpartition("/")[2])
    given = {} if asked is None else asked.model_dump()
    # Options that bear on training alone may be asked for besides.
    fits = any(all(given.get(key) == section[key] for key in section) for section in sections)
    if asked is not None and (fits or not binding):
        return asked
    possible = [DiffusionConfig.model_validate(section) for section in sections]
    if asked is None and len(possible) == 1:
        return possible[0]
    accepted = "; or ".join(_as_given(diffusion) for diffusion in possible)
    raise ValueError(f"{because}: accepted: {accepted}" + ("" if asked is None else f"; not {_as_given(asked)}"))


def _as_given(diffusion: DiffusionConfig) -> str:
    """As the command line takes it."""
    options = (f"--objective-option {key}={value}" for key, value in diffusion.non_default().items())
    return " ".join([f"--objective {diffusion.objective}", *options])


def stated(facts: Mapping[str, Any], name: str) -> Stated:
    """What the facts beside a checkpoint's tensors say or, where they are silent, the file's name.

    Raises:
        ValueError: it is of no objective here; the facts.
    """
    said = {fact: value for fact, value in facts.items() if _speaks(key_of(fact), value)}
    reasons = [f"{fact} is {value!r}" for fact, value in said.items()]
    networks = {network_of(value) for fact, value in said.items() if key_of(fact) in NETWORKS}
    is_repa = PROJECTORS in facts and "dit" not in networks
    if is_repa:
        reasons.append(f"it has {PROJECTORS}, as REPA's SiT")
    if is_repa or "sit" in networks or any(_is_flow(key_of(fact), value) for fact, value in said.items()):
        sections = _flows(facts, said)
        if len(sections) > 1:
            reasons.append(f"which leaves its network's time open ({TIMES})")
        return Stated(sections, ", ".join(reasons), binding=True)
    if said:
        return Stated(_discrete(said), ", ".join(reasons), binding=True)
    if NAMED.search(name):
        sections = (*_flows(facts, said), _iddpm("noise"))
        return Stated(sections, f"by its name it is no DiT, and it does not say what it is ({TIMES})", binding=False)
    return Stated((_iddpm("noise"),), "", binding=False)


def _speaks(key: str, value: Any) -> bool:
    """Whether a fact says something of the objective."""
    if value is None or ((key in FLOW_FLAGS or key in FLAGS) and _word(value) in ("false", "0")):
        return False
    return key in ASSUMED or key in NETWORKS or not is_assumed(key, value)


def _is_flow(key: str, value: Any) -> bool:
    if key in PREDICTION:
        return bool(re.search("flow|rectified", _word(value)))
    return key in PATH or key in FLOW_FLAGS or key == "_class_name"


def _flows(facts: Mapping[str, Any], said: Mapping[str, Any]) -> tuple[Section, ...]:
    path, prediction, unknown = "linear", "velocity", []
    for fact, value in said.items():
        key, word = key_of(fact), _word(value)
        if key in PREDICTION and word in PREDICTIONS:
            prediction = PREDICTIONS[word]
        elif key in FLAGS:
            prediction = FLAGS[key]
        elif key in PATH and word in PATHS:
            path = PATHS[word]
        elif (key in PATH or key in PREDICTION) and not re.search("flow|rectified", word):
            unknown.append(f"{fact} is {value!r}")
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: accepted are linear and GVP paths and velocity, x0 and noise")
    keys, paths = {key_of(fact) for fact in facts}, {value for fact, value in said.items() if key_of(fact) in PATH}
    is_sit = not keys.isdisjoint(OF_SIT) or not paths.isdisjoint(PATHS_OF_SIT)
    is_repa = not keys.isdisjoint(OF_REPA) or not paths.isdisjoint(PATHS_OF_REPA) or PROJECTORS in facts
    times = ["data-at-1"] * (is_sit or not is_repa) + ["noise-at-1"] * (is_repa or not is_sit)
    return tuple(_flow(path, prediction, time) for time in times)


def _discrete(said: Mapping[str, Any]) -> tuple[Section, ...]:
    prediction, unknown, is_open = "noise", [], False
    for fact, value in said.items():
        key, word = key_of(fact), _word(value)
        if key in FLAGS:
            prediction = FLAGS[key]
        elif key in PREDICTION and word in PREDICTIONS:
            prediction = PREDICTIONS[word]
            is_open |= word in ("velocity", "v")  # of a flow too
        elif not is_assumed(key, value):
            unknown.append(f"{fact} is {value!r}")
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: accepted are weights of a DiT or a SiT; of a DiT, 1000 steps with linear betas and "
            "predictions noise, velocity and x0"
        )
    flows = (_flow("linear", prediction, "data-at-1"), _flow("linear", prediction, "noise-at-1"))
    return _iddpm(prediction), *(flows if is_open else ())


def _iddpm(prediction: str) -> Section:
    return {"objective": "iddpm", "prediction": prediction, "timesteps": 1000}


def _flow(path: str, prediction: str, time: str) -> Section:
    return {"objective": "flow", "path": path, "prediction": prediction, "network_time": time}


def _word(value: Any) -> str:
    """`start_x` of "ModelMeanType.START_X"."""
    return str(value).lower().rpartition(".")[2]
