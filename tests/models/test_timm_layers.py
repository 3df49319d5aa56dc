"""timm's layers come without its models and torchvision, and `import timm` means what it always does."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from models.layers.of_timm import deferred

# In a process of its own, as this one has imported timm, or will.
JOB = """
import sys
from pathlib import Path

from recipes import tiny

from bench.files.run_folder import write_config
from bench.parallel import Execution
from bench.run import train

folder = Path(sys.argv[1])
write_config(tiny(), folder)
train(folder, Execution())
assert list((folder / "checkpoints").iterdir())
heavy = ["timm.models", "timm.data", "torchvision.ops", "torch_fidelity", "sklearn", "pandas", "wandb", "diffusers"]
assert not [name for name in heavy if name in sys.modules]

import timm
import torch

from models import create_model
from models.layers import PatchEmbed
from models.layers.of_timm import Attention, Mlp

vit = timm.create_model("vit_tiny_patch16_224", depth=1)
assert type(vit.blocks[0].attn) is timm.layers.Attention is Attention
assert type(vit.blocks[0].mlp) is timm.layers.Mlp is Mlp
assert vit(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
assert isinstance(create_model("DiT-S/8").x_embedder, timm.layers.PatchEmbed)
from timm.layers import create_conv2d, set_fused_attn
from timm.models.vision_transformer import Block
assert type(create_conv2d(1, 1, 1)) is torch.nn.Conv2d
assert type(Block(8, 2).attn) is Attention

import torchvision
assert torchvision.ops.nms(torch.tensor([[0.0, 0, 2, 2]] * 2), torch.tensor([0.5, 1]), 0.5).tolist() == [1]
features = timm.create_model("resnet10t", features_only=True, feature_cls="fx").eval()(torch.zeros(1, 3, 32, 32))
assert features[-1].shape == (1, 512, 1, 1)
"""


@pytest.mark.slow
def test_a_small_job_imports_neither_timm_s_models_nor_torchvision_and_both_work_afterwards(tmp_path: Path) -> None:
    path = str(Path(__file__).parents[1] / "support")
    code = f"import sys; sys.path.insert(0, {path!r})\n{JOB}"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "run"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make a package `heavy` of this text, with modules `light` and `further`."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("heavy", "heavy.light", "heavy.further"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))  # so that it is put back
        del sys.modules[name]

    def write(text: str) -> None:
        (tmp_path / "heavy").mkdir()
        (tmp_path / "heavy" / "__init__.py").write_text(text)
        (tmp_path / "heavy" / "light.py").write_text("class Layer: ...")
        (tmp_path / "heavy" / "further.py").write_text("def further(): ...")

    return write


def light() -> type:
    with deferred("heavy"):
        return importlib.import_module("heavy.light").Layer


WHOLE = "from .light import Layer\nfrom .further import further\nfrom builtins import print as printed\n"


@pytest.mark.parametrize(
    "ask",
    [
        "import heavy; heavy.printed",
        "from heavy import printed",
        "from heavy import *; printed",
        "import heavy.further",
        "from heavy.further import further",
    ],
)
def test_a_package_is_executed_once_more_of_it_is_imported(write: Callable[[str], None], ask: str) -> None:
    write(f"{WHOLE}executed = []\n")
    layer = light()
    assert find_spec("heavy")
    assert importlib.import_module("heavy.light").Layer is layer
    assert "heavy" not in sys.modules
    exec(ask, {})
    heavy = importlib.import_module("heavy")
    assert heavy.Layer is layer is heavy.light.Layer
    heavy.executed.append(1)
    exec(ask, {})
    assert heavy.executed == [1]
    assert callable(heavy.further), "a module of the function's name took its place"
    assert importlib.import_module("heavy.further").further is heavy.further
    assert inspect.getsource(heavy).startswith(WHOLE)
    assert importlib.reload(heavy).executed == []


def test_a_broken_package_says_so_whenever_it_is_imported(write: Callable[[str], None]) -> None:
    write(f"raise RuntimeError('no operator nms')\n{WHOLE}")
    light()
    for ask in 2 * ("from heavy import printed", "import heavy.further", "import heavy"):
        with pytest.raises(RuntimeError, match="no operator nms"):
            exec(ask, {})


def test_what_was_imported_before_stays_as_it_is(write: Callable[[str], None]) -> None:
    write(WHOLE)
    heavy = importlib.import_module("heavy")
    assert light() is heavy.Layer
    assert sys.modules["heavy"] is heavy
    assert type(heavy) is ModuleType
    assert importlib.import_module("heavy.further").further is heavy.further


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'nowhere'"), deferred("nowhere"):
        pass


def test_another_thread_waits_until_the_package_is_whole(write: Callable[[str], None]) -> None:
    write("import time\ntime.sleep(0.2)\nfrom .light import Layer\n")
    layer, seen = light(), []
    threads = [threading.Thread(target=lambda: seen.append(importlib.import_module("heavy").Layer)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == 4 * [layer]
