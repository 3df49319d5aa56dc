"""`ditbench flops`: everything that a user may name, options for every field, one line for what is wrong."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Ended, ditbench
from recipes import TINY

from bench.commands.flops import parts_of
from bench.files.run_folder import write_config
from bench.flops import count
from bench.recipe import parse_recipe
from models import BLOCKS, list_models
from models.dit import DiTOptions
from sweeps.expand import load_sweep

ROOT = Path(__file__).parents[2]
FLAGS = [f"--{field.replace('_', '-')}" for field in DiTOptions.__dataclass_fields__]

NETS = """
from dataclasses import dataclass
import torch
from torch import nn
from models.registry import Family

@dataclass(frozen=True)
class Options:
    width: int = 4
    kind: str = "plain"
    bias: bool = True
    scale: float | None = None

@dataclass(frozen=True)
class Config(Options):
    input_shape = (2, 4, 4)
    out_channels = 2
    num_classes = 3
    num_tokens = 16
    depth = 1
    columns = {}

class Net(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.first = nn.Conv2d(2, config.width, 1, bias=config.bias)
        self.last = nn.Conv2d(config.width, 2, 1)
    def forward(self, x, t, labels):
        return self.last(self.first(x))

FAMILY = Family("net", {"small": {"width": 2}}, Options, lambda p, o: Config(**{**vars(o), **p}), Net)

class Plain(nn.Module):
    def __init__(self, width=8, *, twice=False):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(4, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 4, 3, padding=1))
        self.twice = twice
    def forward(self, x):
        return self.inner(self.inner(x)) if self.twice else self.inner(x)

class Timed(Plain):  # timesteps in fractions, a label that may be left out, a mapping as its output
    def __init__(self):
        super().__init__()
        self.time, self.label = nn.Linear(1, 4), nn.Linear(1, 4)
    def forward(self, x, timesteps, y=None, detailed=True):
        x = x + self.time(timesteps[:, None])[:, :, None, None]
        if y is not None:
            x = x + self.label(y[:, None].float())[:, :, None, None]
        assert detailed is True
        return {"sample": self.inner(x), "detail": None}

class Labelled(Plain):  # whole numbers; what it need not be called with, it cannot be called with
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4)
    def forward(self, x, t, label=None):
        assert label is None
        return self.inner(x + self.table(t)[:, :, None, None])

class Sorted(nn.Module):
    def forward(self, x):
        return x.cumsum(1).sort()[0]

class Broken(nn.Module):
    def forward(self, x):
        raise RuntimeError("two\\nlines")

class Four(nn.Module):
    def forward(self, a, b, c, d):
        return a

def number(size):
    return size

made = Plain(16)
three = 3
"""
# 3x3 convolutions of 4 to 8 channels and back, 8 x 8 pixels.
PLAIN = 2 * 64 * 4 * 8 * 9


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)


def refusal(*arguments: object) -> str:
    ended = ditbench("flops", *arguments)
    assert (ended.status, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    assert line.startswith("ditbench: ")
    return line.removeprefix("ditbench: ")


def rows_of(ended: Ended) -> list[dict[str, Any]]:
    assert (ended.status, ended.err) == (0, "")
    return json.loads(ended.out)


def rows(*arguments: object) -> list[dict[str, Any]]:
    return rows_of(ditbench("flops", *arguments, "--format", "json"))


def tiny(**changed: Any) -> dict[str, Any]:
    return {**TINY, **changed}


# Models by name


def test_the_shipped_table_is_what_the_command_prints() -> None:
    ended = ditbench("flops", "--all", "--format", "csv")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == (ROOT / "results" / "flops.csv").read_text(encoding="utf-8")


def test_the_twelve_models_are_the_default() -> None:
    assert [row["model"] for row in rows()] == list_models()[:12]


def test_case_does_not_matter() -> None:
    assert rows("dit-xl/2", "DIT-S/8") == rows("DiT-XL/2", "DiT-S/8")


def test_training_compute_when_asked_for() -> None:
    arguments = ("--block", "in-context", "--batch-size", 256, "--steps", 400000, "--image-size", 128)
    (row,) = rows("DiT-S/8", *arguments)
    cost = count("DiT-S/8", block="in-context", image_size=128)
    assert row == {
        "model": "DiT-S/8",
        "block": "in-context",
        "image_size": 128,
        "tokens": 4,
        "parameters": cost.num_parameters,
        "gmacs": round(cost.gmacs, 6),
        "paper": None,
        "agrees": "not published",
        "training_gmacs": pytest.approx(cost.gmacs * 3 * 256 * 400_000, rel=1e-12),
        "training_flops": pytest.approx(cost.gmacs * 2e9 * 3 * 256 * 400_000, rel=1e-12),
    }


def test_every_field_of_the_family_is_an_option() -> None:
    typed = {"block": "adaln", "in_channels": 1, "num_classes": 10, "learn_sigma": False, "depth": 3, "hidden_size": 96,
             "num_heads": 4, "patch_size": 2, "input_size": 8, "mlp_ratio": 2.5, "frequency_embedding_size": 32,
             "label_init_std": 0.1, "timestep_init_std": 0.2, "qk_norm": True, "norm": "rms", "mlp": "swiglu",
             "positions": "both", "patch_bottleneck": 3, "class_tokens": 5, "class_tokens_start": 1}  # fmt: skip
    sizes = {key: typed[key] for key in ("depth", "hidden_size", "num_heads", "patch_size", "input_size")}
    pixart = {**sizes, "block": "pixart", "caption_tokens": 3, "caption_channels": 7, "window_size": 2,
              "global_every": 2, "use_rel_pos": True, "drop_path": 0.1, "position_base": 2}  # fmt: skip
    mup = {**sizes, "parametrization": "mup", "base_width": 24}
    assert {*typed, *pixart, *mup, "image_size"} == set(DiTOptions.__dataclass_fields__)
    for given in (pixart, mup, typed):
        words = [word for key, value in given.items() for word in (f"--{key.replace('_', '-')}", value)]
        (row,) = rows("DiT", *words)
        cost = count("DiT", **given)
        assert (row["gmacs"], row["parameters"]) == (cost.by_module[""] / 1e9, cost.num_parameters)
    assert (row["model"], row["image_size"], row["tokens"]) == ("DiT", None, 16)
    assert row["block"].startswith("adaln qk_norm norm=rms mlp=swiglu positions=both patch_bottleneck=3 class_tokens=5")


@pytest.mark.parametrize("spelled", [("--depth", 10), ("--depth=10",), ("--depth", "1e1")])
def test_an_option_overrides_a_preset_which_is_then_not_the_papers(spelled: tuple[object, ...]) -> None:
    (row,) = rows("DiT-B/4", *spelled)
    assert row["gmacs"] == round(count("DiT-B/4", depth=10).gmacs, 6)
    assert (row["paper"], row["agrees"]) == (None, "not published")


def test_a_default_that_is_typed_is_the_default() -> None:
    assert rows("DiT-S/2", "--num-classes", 1000, "--block", "adaln-zero") == rows("DiT-S/2")


def test_a_family_of_ones_own_has_its_own_options() -> None:
    arguments = ("--width", 5, "--bias", "false", "--kind", "no", "--scale", 2)
    small, given, preset = rows("nets:FAMILY/Small", "nets:FAMILY") + rows("nets:FAMILY/small", *arguments)
    assert (small["model"], small["gmacs"]) == ("nets:FAMILY/small", 2 * 2 * 2 * 16 / 1e9)
    assert (given["gmacs"], preset["gmacs"]) == (2 * 2 * 4 * 16 / 1e9, 2 * 2 * 5 * 16 / 1e9)
    assert (small["parameters"], preset["parameters"]) == (2 * 2 + 2 + 2 * 2 + 2, 2 * 5 + 2 * 5 + 2)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["DiT-M/4"], ["unknown model 'DiT-M/4'", *list_models(), "run folder", "my_module:Name"]),
        (["DiT-S/8", "DiT-S/16"], ["unknown model 'DiT-S/16'"]),
        (["digit"], ["unknown model 'digit'"]),
        (["DiT-S/8", "--image-size", "100"], ["image_size: 100 is not a multiple of 8"]),
        (["DiT-S/8", "--image-size", "0"], ["0 is not positive"]),
        (["DiT-S/8", "--image-size", "72"], ["patch_size: 8 does not divide", "9"]),
        (["--image-size", "large"], ["--image-size", "'large'", "integer"]),
        (["DiT-S/8", "--depth", "2.5"], ["--depth", "2.5", "integer"]),
        (["DiT-S/8", "--depth", "-3"], ["depth: -3 is not positive"]),
        (["DiT-S/8", "--depth", "["], ["--depth", "not YAML"]),
        (["DiT-S/8", "--depth"], ["--depth: a value is missing"]),
        (["DiT-S/8", "--depth", "--by-module"], ["--depth: a value is missing"]),
        (["DiT-S/8", "--learn-sigma", "maybe"], ["--learn-sigma", "'maybe'", "boolean"]),
        (["DiT-S/8", "--mlp-ratio", "nan"], ["--mlp-ratio"]),
        (["--block", "adaln-one"], [f"unknown block 'adaln-one'; accepted: {', '.join(BLOCKS)}"]),
        (["--image-sise", "256"], ["--image-sise: no such option", *FLAGS, "--help"]),
        (["--widht", "256", "nets:FAMILY"], ["--widht", "--width", "--kind", "--bias"]),
        (["nets:FAMILY/small", "--width", "wide"], ["--width", "'wide'"]),
        (["nets:FAMILY/tiny"], ["'tiny'", "small"]),
        (["-v"], ["-v: no such option"]),
        (["DiT"], ["depth", "hidden_size", "num_heads", "patch_size", *FLAGS]),
        (["DiT-S/8", "--batch-size", "256"], ["--batch-size and --steps go together"]),
        (["DiT-S/8", "--steps", "400000"], ["--batch-size and --steps go together"]),
        (["--all", "DiT-S/8"], ["--all", "names"]),
        (["--all", "--block", "adaln"], ["--all", "options"]),
        (["DiT-S/8", "--out", "x.png"], ["--out x.png", "--by-module"]),
        (["DiT-S/8", "--by-module", "--out", "x.svg"], ["--out x.svg", ".png", ".pdf"]),
        (["DiT-S/8", "--input-shape", "4,32,32"], ["--input-shape"]),
        (["none.yaml"], ["none.yaml: no such file", "digits"]),
        (["nets.py"], ["nets.py", "nets:Name"]),
        (["."], ["no run folder"]),
        (["x" * 300], ["x" * 300]),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], named: list[str]) -> None:
    message = refusal(*arguments)
    assert [fragment for fragment in named if fragment not in message] == []


def test_the_table_is_not_cut_to_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    ended = ditbench("flops", "DiT-S/8", "DiT-B/4")
    assert (ended.status, ended.err) == (0, "")
    heading, row, truncated, *rest = ended.out.splitlines()
    assert heading.split() == ["model", "block", "image_size", "tokens", "parameters", "gmacs", "paper", "agrees"]
    assert row.split() == ["DiT-S/8", "adaln-zero", "256", "16", "33,148,160", "0.358", "0.36", "yes"]
    assert truncated.split()[-2:] == ["5.56", "truncated"]
    assert "true FLOPs are twice that" in " ".join(rest)
    assert "truncated: DiT-B/4" in ended.out
    assert "truncated" not in ditbench("flops", "DiT-S/8").out


# Recipes, sweeps, runs


def test_a_recipe_is_one_row_with_its_training(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tiny()))
    recipe = parse_recipe(TINY, "")
    cost = count(**recipe.model.arguments())
    (row,) = rows("recipe.yaml")
    assert (row["label"], row["runs"], row["model"], row["image_size"]) == ("S/4", 1, "DiT", None)
    assert (row["gmacs"], row["parameters"]) == (cost.by_module[""] / 1e9, cost.num_parameters)
    train = recipe.train
    assert row["training_gmacs"] == pytest.approx(cost.gmacs * 3 * train.batch_size * train.steps, rel=1e-12)
    (longer,) = rows("recipe.yaml", "--steps", 10 * train.steps, "--depth", 2)
    deeper = count(**{**recipe.model.arguments(), "depth": 2})
    assert longer["training_gmacs"] == pytest.approx(deeper.gmacs * 30 * train.batch_size * train.steps, rel=1e-12)


def test_run_folders_are_their_recipes(tmp_path: Path) -> None:
    recipes = [parse_recipe(tiny(label=label, seed=seed), "") for seed, label in enumerate(("a", "b"))]
    for recipe in recipes:
        write_config(recipe, tmp_path / "runs" / "study" / recipe.folder_name)
    folder = tmp_path / "runs" / "study" / recipes[0].folder_name
    one = rows(folder)
    assert [(row["label"], row["runs"]) for row in one] == [("a", 1)]
    assert rows(folder / "config.yaml") == one
    (both,) = rows("runs/study")
    assert (both["label"], both["runs"]) == ("a and 1 other", 2)


def test_a_sweep_is_a_row_for_all_runs_that_cost_the_same(tmp_path: Path) -> None:
    sweep = {
        "name": "mine",
        "label": "{depth}",
        "base": tiny(),
        "product": {"model.depth": [1, 2], "train.steps": [10, 20], "seed": [0, 1, 2]},
    }
    sweep["base"].pop("label")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(sweep))
    found = rows("mine.yaml")
    assert [(row["label"], row["runs"]) for row in found] == [("1", 3), ("1", 3), ("2", 3), ("2", 3)]
    assert found[1]["training_gmacs"] == pytest.approx(2 * found[0]["training_gmacs"], rel=1e-12)


@pytest.mark.parametrize("name", ["scaling", "digits-seeds"])
def test_a_shipped_sweep_by_name(name: str) -> None:
    recipes = load_sweep(name).recipes
    found = rows(name)
    assert sum(row["runs"] for row in found) == len(recipes)
    assert {row["label"] for row in found} == {recipe.label for recipe in recipes}
    if name == "scaling":
        assert {row["agrees"] for row in found} == {"yes", "truncated"}


def test_a_recipe_that_is_wrong_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(tiny(data={"name": "mnist"})))
    assert refusal("bad.yaml").startswith("bad.yaml: data")
    (tmp_path / "bad.yaml").write_text("- 1\n")
    assert refusal("bad.yaml").startswith("bad.yaml: a recipe is a mapping")


def test_csv_and_json_say_the_same_of_everything(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tiny()))
    everything = ("recipe.yaml", "DiT-B/4", "nets:Plain", "--input-shape", "4,8,8", "--batch-size", 8, "--steps", 10)
    as_json = rows(*everything)
    ended = ditbench("flops", *everything, "--format", "csv")
    as_csv = list(csv.DictReader(io.StringIO(ended.out)))
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in as_json] == as_csv
    assert [row["agrees"] for row in as_json] == ["not published", "truncated", "not published"]
    assert as_json[1]["paper"] == "5.56"
    table = ditbench("flops", *everything).out
    assert [line.split()[0] for line in table.splitlines()[1:4]] == ["S/4", "-", "-"]


# Networks of one's own


@pytest.mark.parametrize(
    ("arguments", "macs", "parameters"),
    [
        (["nets:Plain"], PLAIN, 2 * 288 + 12),
        (["nets:Plain", "--width", 16], 2 * PLAIN, 4 * 288 + 20),
        (["nets:Plain", "--twice", "true"], 2 * PLAIN, 2 * 288 + 12),
        (["nets:made"], 2 * PLAIN, 4 * 288 + 20),
        (["nets:Timed"], PLAIN + 4 + 4, 2 * 288 + 12 + 16),
        (["nets:Labelled"], PLAIN, 2 * 288 + 12 + 40),
        (["torch.nn:Identity"], 0, 0),
    ],
)
def test_networks_without_a_family(arguments: list[object], macs: int, parameters: int) -> None:
    (row,) = rows(*arguments, "--input-shape", "4,8,8")
    assert (row["model"], row["gmacs"], row["parameters"]) == (arguments[0], macs / 1e9, parameters)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nets:Plain"], ["nets:Plain", "--input-shape", "4,32,32"]),
        (["nets:Plain", "--input-shape", "4,a"], ["--input-shape 4,a"]),
        (["nets:Plain", "--input-shape", "4,0,8"], ["--input-shape 4,0,8"]),
        (["nets:Plain", "--input-shape", "3,8,8"], ["nets:Plain", "to have 4 channels", "(1, 3, 8, 8)"]),
        (["nets:Plain", "--input-shape", "4,8,8", "--widht", "3"], ["--widht", "--width, --twice"]),
        (["nets:made", "--input-shape", "4,8,8", "--width", "3"], ["--width", "made already"]),
        (["nets:Sorted", "--input-shape", "4,8,8"], ["nets:Sorted", "aten::cumsum", "aten::sort", "operators"]),
        (["nets:Broken", "--input-shape", "4,8,8"], ["nets:Broken", "RuntimeError: two"]),
        (["nets:Four", "--input-shape", "4,8,8"], ["nets:Four", "(a, b, c, d)", "timesteps and labels"]),
        (["nets:number", "--input-shape", "4,8,8"], ["nets:number", "--size"]),
        (["nets:number", "--size", "3", "--input-shape", "4,8,8"], ["nets:number", "int", "nn.Module"]),
        (["nets:three", "--input-shape", "4,8,8"], ["nets:three", "int"]),
        (["nets:Nope", "--input-shape", "4,8,8"], ["nets has no 'Nope'", "Plain"]),
        (["none:Nope", "--input-shape", "4,8,8"], ["none"]),
    ],
)
def test_a_network_that_cannot_be_counted_is_one_line(arguments: list[str], named: list[str]) -> None:
    message = refusal(*arguments)
    assert [fragment for fragment in named if fragment not in message] == []


# Where it is spent


def test_by_module_adds_up() -> None:
    found = rows("DiT-S/8", "--by-module")
    macs = {row["module"]: row["macs"] for row in found}
    assert {"" if module == "(all)" else module: value for module, value in macs.items()} == count("DiT-S/8").by_module
    top = [value for module, value in macs.items() if "." not in module and module != "(all)"]
    assert sum(top) == macs["(all)"]
    shares = {row["module"]: row["share_percent"] for row in found}
    assert shares["(all)"] == 100
    assert shares["blocks"] == pytest.approx(100 * macs["blocks"] / macs["(all)"], abs=5e-4)


def test_the_table_shows_one_block_of_all() -> None:
    table = ditbench("flops", "DiT-S/8", "--by-module").out
    assert "blocks.0.mlp.fc1" in table
    assert "blocks.1" not in table


SMALL = {"depth": 2, "hidden_size": 48, "num_heads": 3, "patch_size": 2, "input_size": 8}


@pytest.mark.parametrize("block", BLOCKS)
def test_parts_are_those_of_the_paper_and_add_up(block: str) -> None:
    modules = count("DiT", block=block, **SMALL).by_module
    parts, d, tokens = parts_of(modules), 48, 16
    seen = tokens + 2 if block == "in-context" else tokens
    assert sum(parts.values()) == modules[""]
    assert parts["attention"] == 2 * (4 * seen * d * d + 2 * seen * seen * d)
    assert parts["MLP"] == 2 * (2 * seen * d * 4 * d)
    assert parts["embedders"] == tokens * 16 * d + 256 * d + d * d
    assert parts["final layer"] == tokens * d * 32 + (2 * d * d if block in ("adaln-zero", "adaln") else 0)
    maps = {"adaln-zero": 2 * 6, "adaln": 2 * 4, "adaln-single": 6, "pixart": 6}
    assert parts.get("conditioning", 0) == maps.get(block, 0) * d * d
    assert ("cross-attention" in parts) == (block == "cross-attention")
    known = {"attention", "MLP", "embedders", "final layer", "conditioning", "cross-attention", "normalisation"}
    assert set(parts) <= known


def test_parts_of_another_network_go_by_its_names() -> None:
    modules = {"": 10, "stem": 2, "trunk": 7, "trunk.0": 3, "trunk.1": 4, "trunk.1.mix": 4}
    assert parts_of(modules) == {"the rest": 1, "stem": 2, "trunk": 3, "mix": 4}


def test_the_shares_as_a_picture(tmp_path: Path) -> None:
    out = tmp_path / "new" / "shares.png"
    ended = ditbench("flops", "DiT-S/8", "DiT-S/8", "--by-module", "--out", out, "--format", "csv")
    assert ended.status == 0
    assert [Path(line).suffix for line in ended.err.splitlines()] == [".png", ".pdf", ".csv", ".txt", ".tex"]
    assert len(list(csv.DictReader(io.StringIO(ended.out)))) == 2 * len(count("DiT-S/8").by_module)
    assert out.read_bytes().startswith(b"\x89PNG")
    assert out.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    with out.with_suffix(".csv").open(newline="") as file:
        data = list(csv.DictReader(file))
    assert len({row["model"] for row in data}) == 2, "two bars, whatever they are called"
    first = {row["part"]: float(row["gmacs"]) for row in data if row["model"] == data[0]["model"]}
    assert {part: round(1e9 * gmacs) for part, gmacs in first.items()} == parts_of(count("DiT-S/8").by_module)


def test_a_picture_of_nothing_is_refused() -> None:
    message = refusal("torch.nn:Identity", "--input-shape", "4,8,8", "--by-module", "--out", "x.png")
    assert "no multiply-accumulates" in message


# How long it trains

PROFILE = {
    "executor": "slurm",
    "device": "cuda",
    "precision": "bf16",
    "gpu": {"name": "a GPU", "peak_tflops": {"bf16": 300.0}},
    "mfu": {"training": 0.3, "sampling": 0.2, "source": "a guess"},
    "time_limit": "1-00",
    "evaluate": "inline",
    "training": [{"gpus_per_node": 2}],
}


def test_gpu_hours_are_compute_over_the_profiles_speed(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(PROFILE))
    training = ("--batch-size", 256, "--steps", 400_000, "--cluster", "mine.yaml")
    names = ("DiT-XL/2", "nets:Plain", "--input-shape", "4,512,512")
    found = rows(*names, *training)
    for row in found:
        assert row["gpu_hours"] == pytest.approx(row["training_flops"] / (0.3 * 300e12) / 3600, rel=1e-12)
        said = [row[key] for key in ("cluster", "precision", "peak_tflops", "mfu", "mfu_source")]
        assert said == ["mine", "bf16", 300.0, pytest.approx(0.3), "a guess"]
    faster = rows(*names, *training, "--mfu", 0.6)
    assert [row["gpu_hours"] for row in faster] == pytest.approx([row["gpu_hours"] / 2 for row in found], rel=1e-12)
    table = ditbench("flops", *names, *training).out
    assert "a guess" in table


def test_gpu_hours_of_a_sweep_are_the_plans() -> None:
    found = rows("scaling", "--cluster", "slurm-example")
    plan = json.loads(ditbench("sweep", "plan", "scaling", "--cluster", "slurm-example", "--json").out)
    assert [row["gpu_hours"] for row in found] == [run["training_gpu_hours"] for run in plan["runs"]]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["DiT-S/2", "--cluster", "slurm-example"], ["--batch-size", "--steps"]),
        (["scaling", "--cluster", "none"], ["none", "slurm-example"]),
        (["scaling", "--mfu", "0.4"], ["--mfu", "--cluster"]),
        (["scaling", "--cluster", "slurm-example", "--mfu", "40"], ["--mfu 40"]),
        (["scaling", "--cluster", "slurm-example", "--batch-size", "255"], ["255", "ranks"]),
        (["scaling", "--cluster", "slurm-example", "--by-module"], ["--by-module", "--cluster"]),
    ],
)
def test_hours_that_cannot_be_said_are_one_line(arguments: list[str], named: list[str]) -> None:
    message = refusal(*arguments)
    assert [fragment for fragment in named if fragment not in message] == []
