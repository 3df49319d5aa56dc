"""A part's fault is found before anything is trained, in one line that has the line of its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_parts import BLOCK, FAMILY, OBJECTIVE, small_study

from bench.errors import InputError
from sweeps.own.part import keep_part
from sweeps.own.rehearsal import counted, explained, rehearse
from sweeps.own.study import check_compute, own_study

TEXTS = {"block": BLOCK, "objective": OBJECTIVE, "family": FAMILY}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_study(tmp_path, monkeypatch)


def tried(text: str) -> None:
    """All that `ditbench try` does of a size before it trains."""
    Path("mine.py").write_text(text)
    part = keep_part("mine.py", None, None, Path("kept"))
    study = explained(part, lambda: own_study(part, 1))
    for recipe in study.sizes[0]:
        assert rehearse(recipe, part) > 0
        counted(recipe, part)
    check_compute(study, part)


@pytest.mark.parametrize("kind", TEXTS)
def test_what_works_passes(kind: str) -> None:
    tried(TEXTS[kind])


SUM = "        return x + mean\n"
RETURN = '        return {"loss": losses["loss"] / 2}\n'
OUT = "        return out\n"
# Name -> kind, what is replaced by what, the line, and what is said.
FAULTS = {
    "a shape": ("block", SUM, "        return (x + mean)[:, :1]\n", 13, ("Mean", "(32, 1, 12)", "(32, 4, 12)")),
    "nothing returned": ("block", SUM, "        x + mean\n", 13, ("NoneType",)),
    "an exception": ("block", SUM, "        return x + self.nix\n", 15, ("nix",)),
    "arguments": ("block", "dim, num_heads, mlp_ratio", "dim", 9, ("Mean.__init__()",)),
    "arguments of forward": ("block", "(self, x, c)", "(self, x)", 13, ("Mean.forward()",)),
    "when it is built": ("block", "nn.GELU()", "nn.GELU(width)", 11, ("width",)),
    "a value": ("block", SUM, "        x = torch.log(-x.abs())\n        return x + mean\n", 15, ("not finite",)),
    "a returned value": ("block", SUM, "        return x / 0 + mean\n", 15, ("not finite",)),
    "a gradient": (
        "block",
        SUM,
        "        mean = mean + (x - x).abs().sqrt()\n        return x + mean\n",
        15,
        ("finite",),
    ),
    "an operator": ("block", SUM, "        mean = mean.cumsum(1)\n        return x + mean\n", 15, ("aten::cumsum",)),
    "no rows": ("objective", RETURN, '        return {"loss": losses["loss"].mean()}\n', 6, ("loss", "(32,)")),
    "a column": ("objective", RETURN, '        return {"l": losses["loss"]}\n', 6, ("loss",)),
    "no gradient": ("objective", RETURN, '        return {"loss": losses["loss"].detach()}\n', 6, ("network",)),
    "an objective's value": ("objective", RETURN, RETURN.replace("/ 2", "/ 0"), 8, ("not finite",)),
    "a network's shape": ("family", OUT, "        return out[:, :1]\n", 6, ("Net", "(32, 1, 8, 8)", "(32, 2, 8, 8)")),
    "resolving": ("family", "build=Net", "build=Net, resolve=lambda preset, options: preset.x", 13, ("'x'",)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_line(fault: str) -> None:
    kind, old, new, line, said = FAULTS[fault]
    assert old in TEXTS[kind]
    with pytest.raises(InputError) as caught:
        tried(TEXTS[kind].replace(old, new))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for each in (f"mine.py, line {line}", *said):
        assert each in message


def test_a_stated_cost_is_counted_again() -> None:
    text = (
        "from dataclasses import replace\nfrom models.designs import ADALN, DesignCost\nMINE = replace(ADALN, cost={})"
    )
    tried(text.replace("{}", "DesignCost(in_block=4, in_final=2)"))
    with pytest.raises(InputError, match="counted: "):
        tried(text.replace("{}", "DesignCost(in_block=3, in_final=2)"))


def test_a_family_needs_three_sizes_of_the_built_ins_compute() -> None:
    with pytest.raises(InputError, match="needed: at least 3"):
        tried(FAMILY.replace("(12, 16, 20, 24, 64)", "(12, 16)"))
    with pytest.raises(InputError, match="overlap"):
        tried(FAMILY.replace("(12, 16, 20, 24, 64)", "(240, 280, 320)"))


def test_of_more_presets_those_of_the_built_ins_compute_are_tried() -> None:
    Path("mine.py").write_text(FAMILY)
    study = own_study(keep_part("mine.py", None, None, Path("kept")), 2)
    assert [recipe.model.name.rpartition("/")[2] for recipe in study.own if recipe.seed == 1] == ["12", "16", "24"]
    assert len(study.built_in) == len(study.own) == 6
