"""Weights of SiT, REPA and others: sampled as what they say they are, or refused with what to say, never as another."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import ditbench
from pretrained_models import small
from recipes import recipe as make_recipe
from recipes import tiny
from safetensors.torch import save_file
from torch import Tensor

from bench.errors import InputError
from bench.files.run_folder import write_config
from bench.objectives import OBJECTIVES
from bench.parallel import Execution
from bench.provenance import made_from_path
from bench.recipe.parts import DiffusionConfig, parse_diffusion
from bench.run import train
from bench.weights import Weights, load_weights_of
from models import load_pretrained
from models.files.tensor_files import HEADER

CPU = torch.device("cpu")
# What each training script keeps beside its weights; the width of `small` is no published one.
SIT = {
    **{"model": "SiT-XL/2", "image_size": 64, "num_classes": 7, "vae": "ema", "global_batch_size": 256, "num_heads": 4},
    **{"path_type": "Linear", "prediction": "velocity", "loss_weight": None, "sample_eps": 1e-3, "train_eps": 1e-5},
}
REPA = {
    **{"model": "SiT-XL/2", "resolution": 64, "num_classes": 7, "cfg_prob": 0.1, "qk_norm": False, "num_heads": 4},
    **{"path_type": "linear", "prediction": "v", "weighting": "uniform", "enc_type": "dinov2-vit-b", "proj_coeff": 0.5},
}
FROM_NOISE = {"objective": "flow", "network_time": "data-at-1"}
FROM_DATA = {"objective": "flow"}


def heads(width: int = 32) -> dict[str, Tensor]:
    """REPA's projectors."""
    return {f"projectors.0.{n}.{what}": torch.randn(3, width) for n in (0, 2, 4) for what in ("weight", "bias")}


def saved(path: Path, args: dict[str, Any] | None = None, **more: Any) -> Path:
    """A training checkpoint of SiT's layout: its average in `ema`, other weights in `model`."""
    trained = {name: tensor + 1 for name, tensor in small().state_dict().items()}
    content = {"model": trained, "ema": {**small().state_dict(), **more}, "opt": {"state": {}}}
    torch.save(content if args is None else {**content, "args": argparse.Namespace(**args)}, path)
    return path


def load(path: Path, asked: dict[str, Any] | None = None) -> Weights:
    weights = load_weights_of(
        str(path), None, True, None, None if asked is None else DiffusionConfig.model_validate(asked)
    )
    for name, tensor in small().state_dict().items():
        assert torch.equal(weights.model.state_dict()[name], tensor), name
    return weights


def refused(path: Path, *parts: str, asked: dict[str, Any] | None = None) -> None:
    with pytest.raises(InputError) as caught:
        load(path, asked)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), *parts):
        assert part in message


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (SIT, FROM_NOISE),
        (SIT | {"path_type": "GVP"}, FROM_NOISE | {"path": "gvp"}),
        (SIT | {"prediction": "noise"}, FROM_NOISE | {"prediction": "noise"}),
        (REPA, FROM_DATA),
        (REPA | {"path_type": "cosine"}, FROM_DATA | {"path": "gvp"}),
        ({"model": "DiT-XL/2", "image_size": 64, "num_classes": 7, "num_heads": 4}, {}),
        ({"num_heads": 4}, {}),
        ({"num_heads": 4, "prediction_type": "v_prediction"}, {"prediction": "velocity"}),
        ({"num_heads": 4, "v_prediction": True, "model": "DiT-S/2"}, {"prediction": "velocity"}),
        ({"num_heads": 4, "model_mean_type": "ModelMeanType.START_X"}, {"prediction": "x0"}),
        ({"num_heads": 4, "flow_matching": False, "predict_xstart": False, "diffusion_steps": 1000}, {}),
    ],
    ids=range(11),
)
def test_what_a_checkpoint_says_is_followed(tmp_path: Path, args: dict[str, Any], expected: dict[str, Any]) -> None:
    weights = load(saved(tmp_path / "0400000.pt", args))
    assert weights.diffusion == DiffusionConfig.model_validate(expected)
    assert weights.identity.get("objective", DiffusionConfig().id) == weights.diffusion.id
    assert (weights.shape, weights.num_classes) == ((4, 8, 8), 7)


@pytest.mark.parametrize("asked", [FROM_DATA, FROM_NOISE, {"objective": "flow", "path": "gvp"}, {"objective": "iddpm"}])
@pytest.mark.parametrize(("args", "own"), [(SIT, FROM_NOISE), (REPA, FROM_DATA)])
def test_what_is_asked_for_must_be_what_it_says(
    tmp_path: Path, args: dict[str, Any], own: dict[str, Any], asked: dict[str, Any]
) -> None:
    path = saved(tmp_path / "0400000.pt", args)
    if asked == own:
        assert load(path, asked).diffusion == DiffusionConfig.model_validate(own)
    else:
        refused(path, "args.path_type is ", "accepted: --objective flow", "; not --objective", asked=asked)


@pytest.mark.parametrize("args", [SIT, REPA], ids=["SiT", "REPA"])
def test_imagenets_1000_classes_and_their_null_label(tmp_path: Path, args: dict[str, Any]) -> None:
    """1000 and the 1001 rows of the table differ by a thousandth only."""
    path = tmp_path / "0400000.pt"
    for classes, fits in ((1000, True), (1001, False), (999, False)):
        said = argparse.Namespace(**{**args, "num_classes": classes})
        torch.save({"ema": small(num_classes=1000).state_dict(), "args": said}, path)
        if fits:
            assert load_weights_of(str(path), None, True).num_classes == 1000
        else:
            with pytest.raises(InputError, match=rf"args\.num_classes is {classes}"):
                load_weights_of(str(path), None, True)


def test_options_of_training_alone_may_be_asked_for(tmp_path: Path) -> None:
    asked = FROM_NOISE | {"times": "logit-normal"}
    assert load(saved(tmp_path / "0400000.pt", SIT), asked).diffusion.times == "logit-normal"


def test_a_dit_is_not_sampled_as_a_flow(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", {"model": "DiT-XL/2", "num_heads": 4})
    refused(path, "args.model is 'DiT-XL/2'", "accepted: --objective iddpm; not --objective flow", asked=FROM_DATA)


def test_the_official_weights_are_a_dits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"ema": small().state_dict(), "args": {"num_heads": 4}}, tmp_path / "official.pt")
    monkeypatch.setattr("models.files.assets.locate", lambda name, offline: tmp_path / "official.pt")
    assert load(Path("DiT-XL/2-256")).diffusion == DiffusionConfig()
    with pytest.raises(InputError, match="model is 'DiT-XL/2-256': accepted: --objective iddpm; not --objective flow"):
        load(Path("DiT-XL/2-256"), FROM_DATA)


@pytest.mark.parametrize(
    "args",
    [
        {"prediction": "score"},
        {"path_type": "VP"},
        {"noise_schedule": "cosine"},
        {"diffusion_steps": 4000},
        {"model": "UViT-L/2"},
        {**SIT, "prediction": "score"},
        {**SIT, "path_type": "VP"},
        {**REPA, "model": "UViT-L/2"},
    ],
)
def test_what_no_objective_here_is_cannot_be_asked_for(tmp_path: Path, args: dict[str, Any]) -> None:
    wrong = {key: value for key, value in args.items() if (SIT | REPA).get(key) != value and SIT.get(key) != value}
    ((key, value),) = wrong.items()
    path = saved(tmp_path / "model.pt", {"num_heads": 4, **args})
    for asked in (None, FROM_DATA, FROM_NOISE, {"objective": "iddpm"}):
        refused(path, f"args.{key} is {value!r}", asked=asked)


@pytest.mark.parametrize("others", [{}, SIT, REPA], ids=["DiT", "SiT", "REPA"])
@pytest.mark.parametrize(
    "args", [{"use_rmsnorm": True}, {"cfg_prob": 0.0}, {"num_classes": 1000}, {"num_classes": 8}, {"depth": 3}]
)
def test_another_network_is_refused_whatever_its_objective(
    tmp_path: Path, args: dict[str, Any], others: dict[str, Any]
) -> None:
    ((key, value),) = args.items()
    refused(saved(tmp_path / "model.pt", {**others, "num_heads": 4, **args}), f"args.{key} is {value!r}")


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        ({"model": "SiT-XL/2"}, ("args.model is 'SiT-XL/2'",)),
        ({"flow_matching": True}, ("args.flow_matching is True",)),
        ({"objective": "rectified_flow"}, ("args.objective is 'rectified_flow'",)),
        ({"path_type": "Linear", "proj_coeff": 0.5}, ("args.path_type is 'Linear'",)),
        ({"prediction": "velocity"}, ("args.prediction is 'velocity'", "prediction=velocity; or --objective flow")),
    ],
)
def test_what_it_leaves_open_is_asked_for(tmp_path: Path, args: dict[str, Any], parts: tuple[str, ...]) -> None:
    path = saved(tmp_path / "model.pt", {"num_heads": 4, **args})
    refused(path, *parts, "--objective flow --objective-option network_time=data-at-1")
    for asked in (FROM_DATA, FROM_NOISE):
        assert load(path, asked).diffusion == DiffusionConfig.model_validate(asked)
    refused(path, asked={"objective": "edm"})


@pytest.mark.parametrize(
    "name", ["SiT-XL-2-256x256.pt", "sit.pt", "my_sit_b2.pth", "REPA-SiT.pt", "SiTXL2.pt", "flow.safetensors"]
)
def test_a_file_whose_name_alone_tells_that_it_is_no_dit(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SiT's own release is; what it is can be said then."""
    monkeypatch.setattr("models.weights._num_heads", lambda width: 4)
    path, state = tmp_path / name, small().state_dict()
    save_file(state, path) if name.endswith("safetensors") else torch.save(state, path)
    refused(
        path, "--objective flow --objective-option network_time=data-at-1; or --objective flow; or --objective iddpm"
    )
    for asked in (FROM_NOISE, FROM_DATA, {"objective": "iddpm"}):
        assert load(path, asked).diffusion == DiffusionConfig.model_validate(asked)


@pytest.mark.parametrize(
    "name", ["model.pt", "DiT-XL-2-256x256.pt", "position.pt", "transit.pth", "visit2.pt", "0400000.pt"]
)
def test_a_file_that_says_nothing_is_a_dit(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.weights._num_heads", lambda width: 4)
    torch.save(small().state_dict(), tmp_path / name)
    weights = load(tmp_path / name)
    assert weights.diffusion == DiffusionConfig()
    assert "objective" not in weights.identity
    assert load(tmp_path / name, FROM_NOISE).diffusion == DiffusionConfig.model_validate(FROM_NOISE)


def test_projectors_are_left_out_and_say_what_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = saved(tmp_path / "last.pt", REPA, **heads())
    with caplog.at_level(logging.WARNING):
        assert load(path).diffusion == DiffusionConfig.model_validate(FROM_DATA)
    assert "projectors.*: 6 tensors ignored" in caplog.text
    silent = saved(tmp_path / "0400000.pt", {"num_heads": 4}, **heads())
    assert load(silent).diffusion == DiffusionConfig.model_validate(FROM_DATA)
    refused(silent, "projectors.*", asked={"objective": "iddpm"})
    of_dit = saved(tmp_path / "dit.pt", {"num_heads": 4, "model": "DiT-XL/2"}, **heads())
    assert load(of_dit).diffusion == DiffusionConfig()
    # Who asks for a DiT gets none of REPA's SiT.
    with pytest.raises(ValueError, match=r"it has projectors\.\*"):
        load_pretrained(silent)


def as_itself(state: dict[str, Tensor]) -> dict[str, Any]:
    return state


def under(*keys: str) -> Callable[[dict[str, Tensor]], dict[str, Any]]:
    def put(state: dict[str, Tensor]) -> dict[str, Any]:
        content: Any = state
        for key in reversed(keys):
            content = {key: content, "epoch": 3}
        return content

    return put


def prefixed(*prefixes: str) -> Callable[[dict[str, Tensor]], dict[str, Any]]:
    """The network under the first; another one under each other."""

    def put(state: dict[str, Tensor]) -> dict[str, Any]:
        own = {f"{prefixes[0]}{name}": tensor for name, tensor in state.items()}
        others = {f"{prefix}{name}": tensor + 1 for prefix in prefixes[1:] for name, tensor in state.items()}
        return {**others, **own}

    return put


@pytest.mark.parametrize(
    ("layout", "is_said"),
    [
        (as_itself, False),
        (under("ema"), False),
        (under("state_dict"), False),
        (under("model_ema"), False),
        (under("ema_state_dict"), False),
        (under("model"), True),
        (under("model_state_dict"), True),
        (prefixed("module."), False),
        (prefixed("ema.", "model."), False),
        (prefixed("_orig_mod.module."), False),
        (lambda state: {"state_dict": prefixed("ema_model.", "model.")(state), "epoch": 1}, False),
        (lambda state: {"model": {k: v + 1 for k, v in state.items()}, "model_ema": prefixed("module.")(state)}, False),
    ],
    ids=range(12),
)
def test_weights_are_found_where_training_scripts_keep_them(
    tmp_path: Path,
    layout: Callable[[dict[str, Tensor]], dict[str, Any]],
    is_said: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("models.weights._num_heads", lambda width: 4)
    torch.save(layout(small().state_dict()), tmp_path / "last.pt")
    with caplog.at_level(logging.WARNING):
        load(tmp_path / "last.pt")
    assert ("no averaged weights" in caplog.text) == is_said


@pytest.mark.parametrize(
    ("layout", "part"),
    [
        (lambda state: {"model_ema1": state, "model_ema2": state}, "has the averages model_ema1, model_ema2"),
        (prefixed("student.", "teacher."), "has several networks: teacher., student."),
        (prefixed("ema1.", "ema2.", "model."), "has several networks"),
    ],
    ids=range(3),
)
def test_several_that_may_be_meant(
    tmp_path: Path, layout: Callable[[dict[str, Tensor]], dict[str, Any]], part: str
) -> None:
    torch.save(layout(small().state_dict()), tmp_path / "last.pt")
    refused(tmp_path / "last.pt", part)


def test_a_safetensors_header_is_asked_too(tmp_path: Path) -> None:
    metadata = {f"modelspec.{key}": str(value) for key, value in SIT.items()}
    save_file(small().state_dict(), tmp_path / "a.safetensors", metadata=metadata)
    assert load(tmp_path / "a.safetensors").diffusion == DiffusionConfig.model_validate(FROM_NOISE)
    assert HEADER not in metadata


def test_without_sigma_channels_as_repas(tmp_path: Path) -> None:
    """SiT's last half of channels is not trained (SiT#30); either gives the same kind of samples."""
    model = small(learn_sigma=False)
    torch.save({"ema": model.state_dict(), "args": argparse.Namespace(**REPA)}, tmp_path / "last.pt")
    weights = load_weights_of(str(tmp_path / "last.pt"), None, True)
    assert weights.diffusion == DiffusionConfig.model_validate(FROM_DATA)


@pytest.mark.parametrize(("args", "told"), [(SIT, 0.75), (REPA, 0.25)], ids=["SiT", "REPA"])
def test_the_network_is_told_its_own_time_and_its_velocity_has_its_own_sign(
    tmp_path: Path, args: dict[str, Any], told: float
) -> None:
    """Against the definitions in their papers' code, at 3/4 of data: x = 3/4 x0 + 1/4 noise."""
    weights = load(saved(tmp_path / "last.pt", args))
    diffusion = weights.diffusion
    objective = OBJECTIVES.find(diffusion.objective)(diffusion.options, CPU)
    x0, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    velocity = x0 - noise if told == 0.75 else noise - x0
    times: list[float] = []

    def network(x: Tensor, t: Tensor, time: float) -> Tensor:
        times.extend(t.tolist())
        return torch.cat([velocity, torch.full_like(velocity, 1e3)], 1)  # of which the second half is never looked at

    found = objective.denoiser(network, clip=False)(0.75 * x0 + 0.25 * noise, 0.25)
    assert times == pytest.approx([told, told])
    assert torch.allclose(found.x0, x0, atol=1e-5)
    assert torch.allclose(found.noise, noise, atol=1e-5)


# The command line


def run_sample(path: Path, out: Path, *more: object) -> Any:
    few = ("--num-samples", 2, "--sampling-steps", 3, "--decoder", path.parent / "vae", "--offline")
    return ditbench("sample", path, "--out", out, *few, *more)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from latent_runs import save_vae

    monkeypatch.setattr("models.weights._num_heads", lambda width: 4)
    save_vae(tmp_path / "vae", 4)
    torch.save(small().state_dict(), tmp_path / "SiT-XL-2-256x256.pt")
    return tmp_path


def test_samples_of_a_sit(folder: Path) -> None:
    """Its .json says as what it was sampled, and the same weights as REPA's give others."""
    path = folder / "SiT-XL-2-256x256.pt"
    done = run_sample(path, folder / "a.npy")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "--objective flow --objective-option network_time=data-at-1" in done.err
    sit = ("--objective", "flow", "--objective-option", "network_time=data-at-1", "--sampler", "heun")
    done = run_sample(path, folder / "a.npy", *sit)
    assert (done.status, done.err) == (0, "")
    made = json.loads(made_from_path(folder / "a.npy").read_text())
    assert made["objective"] == parse_diffusion("flow", {"network_time": "data-at-1"}).id
    assert run_sample(path, folder / "b.npy", "--objective", "flow", "--sampler", "heun").status == 0
    assert not np.array_equal(np.load(folder / "a.npy"), np.load(folder / "b.npy"))
    # The same file as another objective does not go on where that one was.
    done = run_sample(path, folder / "a.npy", "--objective", "flow", "--sampler", "heun")
    assert (done.status, "holds other samples" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (("--objective", "flo"), ("--objective", "flow")),
        (("--objective", "flow", "--objective-option", "network_tim=data-at-1"), ("network_tim", "network_time")),
        (("--objective", "flow", "--objective-option", "network_time=1"), ("--objective-option", "network_time")),
        (
            ("--objective", "flow", "--objective-option", "network_time"),
            ("--objective-option network_time", "KEY=VALUE"),
        ),
        (("--objective-option", "network_time=data-at-1"), ("--objective-option", "--objective?")),
        (("--objective", "flow"), ("--sampler: ddpm", "heun")),
    ],
)
def test_mistyped_options_are_refused_in_one_line(folder: Path, given: tuple[str, ...], parts: tuple[str, ...]) -> None:
    done = run_sample(folder / "SiT-XL-2-256x256.pt", folder / "a.npy", *given)
    assert (done.status, done.err.count("\n")) == (2, 1)
    for part in parts:
        assert part in done.err
    assert not (folder / "a.npy").exists()


def test_a_run_has_the_objective_of_its_recipe(tmp_path: Path) -> None:
    write_config(tiny(), tmp_path / "run")
    with pytest.raises(InputError, match=r"--objective flow: .* is a run of iddpm, which its recipe says"):
        load_weights_of(str(tmp_path / "run"), None, True, None, DiffusionConfig.model_validate(FROM_DATA))


@pytest.mark.parametrize("diffusion", [{}, FROM_NOISE | {"times": "logit-normal"}, {"prediction": "velocity"}])
def test_weights_of_a_run_are_known_outside_of_its_folder(tmp_path: Path, diffusion: dict[str, Any]) -> None:
    sampler = "heun" if "objective" in diffusion else "ddpm"
    given = {f"diffusion.{key}": value for key, value in diffusion.items()}
    recipe = make_recipe({**given, "evaluation.sampler": sampler})
    write_config(recipe, tmp_path / "run")
    train(tmp_path / "run", Execution(offline=True))
    copy = tmp_path / "best.safetensors"
    shutil.copy(tmp_path / "run/checkpoints/ema-00000012.safetensors", copy)
    assert load_weights_of(str(copy), None, True).diffusion == recipe.diffusion
    assert load_weights_of(str(copy), None, True, None, recipe.diffusion).diffusion == recipe.diffusion
    with pytest.raises(InputError, match=r"--objective edm: .* is of a run of "):
        load_weights_of(str(copy), None, True, None, DiffusionConfig(objective="edm"))
    if diffusion:
        with pytest.raises(ValueError, match=r"ditbench\.diffusion\.(objective|prediction) is "):
            load_pretrained(copy)
    else:
        assert load_pretrained(copy).arch == recipe.model.architecture()
