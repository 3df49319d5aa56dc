"""Linear maps by oneDNN: the same numbers to rounding, and only where processor and user have it so."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.cpu import linear
from bench.flops import forward_gmacs
from bench.parallel import Parallel
from bench.run import build_trainer
from sweeps.expand import load_sweep

AMD = "vendor_id : AuthenticAMD\nflags : fpu avx2 avx512f avx512_bf16\n"
INTEL = "vendor_id : GenuineIntel\nflags : fpu avx2 avx512f\n"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    linear.pays.cache_clear()
    monkeypatch.setattr(linear, "LEAST_MACS", 0)
    yield
    linear.pays.cache_clear()


def on_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, facts: str) -> bool:
    (tmp_path / "cpuinfo").write_text(facts)
    monkeypatch.setattr(linear, "CPU_FACTS", tmp_path / "cpuinfo")
    return linear.pays()


@pytest.fixture
def amd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a processor that is served; others may have oneDNN round to bfloat16."""
    if not on_processor(monkeypatch, tmp_path, AMD):
        pytest.skip("no oneDNN here, or one that rounds")


def passed(network: nn.Module, x: Tensor) -> list[Tensor | None]:
    """Output, and gradients of the input and of parameters."""
    x = x.clone().requires_grad_()
    for parameter in network.parameters():
        parameter.grad = None
    output = network(x)
    output.sin().sum().backward()
    return [output, x.grad, *(parameter.grad for parameter in network.parameters())]


@pytest.mark.usefixtures("amd")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(96,), (40, 96), (3, 17, 96), (2, 3, 5, 96), (0, 96)])
def test_outputs_and_gradients_are_those_of_torch(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    network, x = nn.Linear(96, 64, bias=bias), torch.randn(shape)
    expected = passed(network, x)
    found = passed(linear.by_onednn(network), x)
    assert type(network) is not nn.Linear
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("amd")
def test_no_product_is_rounded_further_than_float32() -> None:
    """Whole numbers of 23 bits, of which bfloat16, TF32 and float16 lose some: their products with 1 are exact."""
    held, ones = torch.randint(2**22, 2**23, (64, 64)).float(), torch.eye(64)
    network = nn.Linear(64, 64, bias=False)
    linear.by_onednn(network)
    with torch.no_grad():
        network.weight.copy_(ones)
    x = held.clone().requires_grad_()
    output = network(x)
    output.backward(held)
    assert torch.equal(output, held)
    assert x.grad is not None and torch.equal(x.grad, held)
    network.zero_grad()
    network(ones).backward(held)
    assert network.weight.grad is not None and torch.equal(network.weight.grad, held.t())


@pytest.mark.usefixtures("amd")
def test_what_is_no_float32_on_a_cpu_or_no_plain_linear_map_stays_torch_s() -> None:
    class Scaled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 64), Scaled(64, 64))
    x = torch.randn(32, 64)
    with torch.autocast("cpu", torch.bfloat16):
        expected = network(x)
        assert torch.equal(linear.by_onednn(network)(x), expected)
    assert type(network[1]) is Scaled
    assert network.double()(x.double()).dtype == torch.float64


@pytest.mark.usefixtures("amd")
def test_a_compiled_network_multiplies_as_torch_compiles_it() -> None:
    network, x = nn.Linear(64, 64), torch.randn(32, 64)
    expected = network(x)
    linear.by_onednn(network)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), expected)


@pytest.mark.usefixtures("amd")
def test_frozen_weights_get_no_gradient_and_names_stay() -> None:
    network = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    names = list(network.state_dict())
    network[0].requires_grad_(False)
    x = torch.randn(32, 64)
    linear.by_onednn(network)(x).sum().backward()
    assert [parameter.grad is None for parameter in network.parameters()] == [True, True, False, False]
    assert list(network.state_dict()) == names


@pytest.mark.usefixtures("amd")
def test_the_switch_is_as_it_was_after_an_error() -> None:
    before = torch.get_float32_matmul_precision()
    with pytest.raises(RuntimeError, match="shape"):
        linear.by_onednn(nn.Linear(64, 64))(torch.randn(32, 63))
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("facts", [INTEL, AMD.replace("avx512f", ""), AMD + "amx_tile amx_bf16\n", ""])
def test_other_processors_are_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, facts: str) -> None:
    assert not on_processor(monkeypatch, tmp_path, facts)
    assert type(linear.by_onednn(nn.Linear(64, 64))) is nn.Linear


@pytest.mark.usefixtures("amd")
def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DITBENCH_ONEDNN", "0")
    linear.pays.cache_clear()
    assert not linear.pays()


@pytest.mark.usefixtures("amd")
def test_a_product_that_is_not_exact_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that rounds although its name does not say so."""
    product = Tensor.__matmul__
    monkeypatch.setattr(Tensor, "__matmul__", lambda a, b: product(a.bfloat16(), b.bfloat16()).float())
    linear.pays.cache_clear()
    assert not linear.pays()


@pytest.mark.usefixtures("amd")
def test_training_is_the_same_up_to_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = next(recipe for recipe in load_sweep("digits").recipes if recipe.label == "S/1")
    gmacs, cpu = forward_gmacs(recipe.model), torch.device("cpu")

    def losses() -> list[float]:
        rows: list[dict[str, float]] = []
        train = recipe.train.model_copy(update={"log_every": 1, "steps": 20, "checkpoint_steps": ()})
        asked = recipe.model_copy(update={"train": train})
        with tempfile.TemporaryDirectory() as folder:
            trainer = build_trainer(asked, recipe.data.load(cpu), Path(folder), gmacs, Parallel(cpu), rows.append)
            trainer.train_until(20)
        return [row["loss"] for row in rows]

    found = losses()
    monkeypatch.setenv("DITBENCH_ONEDNN", "0")
    linear.pays.cache_clear()
    expected = losses()
    assert found != expected
    assert found == pytest.approx(expected, rel=1e-4)
