"""Checkpoints: what was saved is loaded bit for bit, and no crash or damage passes for a whole one."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import resource
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from bench.errors import RunError
from bench.files import atomic, checkpoint
from bench.files.checkpoint import CorruptCheckpoint, load_newest_state, load_tensors, save_state, save_tensors

DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int8, torch.int16, torch.int32,
    torch.int64,
)  # fmt: skip


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_identical(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """The same names, dtypes, shapes and bits: signed zeros and every NaN count."""
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert second[name].dtype == tensor.dtype
        assert second[name].shape == tensor.shape
        assert bits(second[name]) == bits(tensor)


def state(step: int) -> dict[str, Tensor]:
    """A small training state that differs from step to step."""
    return {"model.w": torch.arange(6.0).reshape(2, 3) + step, "step": torch.tensor(step), "none": torch.empty(0, 2)}


def state_path(folder: Path, step: int) -> Path:
    return folder / f"state-{step:08d}.safetensors"


def flip(path: Path, byte: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any bit pattern in any shape: NaNs with payloads, infinities, denormals, nothing at all."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    size = dtype.itemsize * torch.Size(shape).numel()
    content = draw(st.binary(min_size=size, max_size=size))
    if not content:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(content), dtype=dtype).reshape(shape)


@settings(deadline=None)
@given(st.dictionaries(st.text("abc.01", min_size=1, max_size=5), tensors(), max_size=4), st.text(max_size=5))
def test_tensors_survive_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, saved: dict[str, Tensor], note: str
) -> None:
    path = tmp_path_factory.mktemp("checkpoint") / "x.safetensors"
    save_tensors(path, saved, {"note": note})
    loaded, metadata = load_tensors(path)
    assert_identical(saved, loaded)
    assert metadata["note"] == note


def test_views_and_parameters_are_saved_as_they_look(tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    saved = {"transposed": whole.t(), "part": whole[1:3, ::2], "parameter": torch.nn.Parameter(torch.ones(2))}
    save_tensors(tmp_path / "x", saved)
    loaded, _ = load_tensors(tmp_path / "x")
    assert_identical({name: tensor.detach() for name, tensor in saved.items()}, loaded)
    assert not loaded["parameter"].requires_grad


def test_equal_content_makes_equal_files_that_a_group_can_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_tensors(tmp_path / name, state(1), {"step": "1", "note": "x", "other": "y"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with whole states of steps 10 and 20."""
    folder = tmp_path / "checkpoints"
    for step in (10, 20):
        save_state(folder, step, state(step))
    return folder


def newest(folder: Path, at_most: int = 1000) -> int | None:
    """The step that would be resumed from; its tensors must be that step's."""
    found = load_newest_state(folder, at_most)
    if found is None:
        return None
    assert_identical(found[1], state(found[0]))
    return found[0]


def test_the_newest_state_up_to_a_step_is_loaded(folder: Path) -> None:
    assert [newest(folder, step) for step in (9, 10, 19, 20, 21)] == [None, 10, 10, 20, 20]


def test_no_state_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    assert newest(tmp_path / "none") is None


def test_only_the_newest_states_are_kept_by_number_not_by_name(tmp_path: Path) -> None:
    for step in (5, 30, 99_999_999, 100_000_000):
        save_state(tmp_path, step, state(step))
    assert names(tmp_path) == {"state-99999999.safetensors", "state-100000000.safetensors"}
    assert newest(tmp_path, 10**9) == 100_000_000


def test_kept_weights_are_not_cleared_away_with_old_states(folder: Path) -> None:
    save_tensors(checkpoint.weights_path(folder, 10), state(10))
    for step in (30, 40, 50):
        save_state(folder, step, state(step))
    assert names(folder) == {"ema-00000010.safetensors", "state-00000040.safetensors", "state-00000050.safetensors"}


@pytest.mark.parametrize("left", [0.0, 0.01, 0.02, 0.3, 0.7, 0.95, 0.99])
def test_a_truncated_state_is_passed_over(folder: Path, left: float, caplog: pytest.LogCaptureFixture) -> None:
    path = state_path(folder, 20)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole))])
    with caplog.at_level(logging.WARNING, "bench.files.checkpoint"):
        assert newest(folder) == 10
    (record,) = caplog.records
    assert record.getMessage().startswith(f"not a whole checkpoint, using the one before it: {path}: ")


def test_no_shorter_and_no_longer_file_is_taken_for_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save_tensors(path, state(1), {"step": "1"})
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(CorruptCheckpoint):
            load_tensors(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(CorruptCheckpoint):
        load_tensors(path)


def test_no_flipped_bit_in_header_or_data_goes_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save_tensors(path, state(1), {"test_accuracy": "0.98"})
    whole = path.read_bytes()
    for byte in range(len(whole)):
        flip(path, byte, bit=byte % 7)
        try:
            load_tensors(path)
        except CorruptCheckpoint as error:
            assert str(error).startswith(f"{path}: ")
        else:
            pytest.fail(f"bit {byte % 7} of byte {byte} of {len(whole)} was flipped and nobody noticed")
        path.write_bytes(whole)
    assert_identical(load_tensors(path)[0], state(1))


@pytest.mark.parametrize("byte", [0, 30, -1], ids=["length", "header", "data"])
def test_an_altered_state_is_passed_over(folder: Path, byte: int, caplog: pytest.LogCaptureFixture) -> None:
    flip(state_path(folder, 20), byte)
    assert newest(folder) == 10
    assert str(state_path(folder, 20)) in caplog.text


def test_when_no_state_is_whole_there_is_none(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (10, 20):
        flip(state_path(folder, step), -1)
    assert newest(folder) is None
    assert len(caplog.records) == 2


def test_damaged_weights_are_none_and_are_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert checkpoint.load_weights(folder, 10) is None
    assert caplog.records == []
    path = checkpoint.weights_path(folder, 10)
    save_tensors(path, state(10))
    loaded = checkpoint.load_weights(folder, 10)
    assert loaded is not None
    assert_identical(loaded, state(10))
    flip(path, -1)
    assert checkpoint.load_weights(folder, 10) is None
    assert str(path) in caplog.text


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_pickle_is_refused_and_never_run(folder: Path, tmp_path: Path, write: Any) -> None:
    write({"model.w": Trap(tmp_path / "sprung")}, state_path(folder, 20))
    with pytest.raises(CorruptCheckpoint):
        load_tensors(state_path(folder, 20))
    assert newest(folder) == 10
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("metadata", [None, {"step": "20"}, {"ditbench": "{}"}, {"ditbench": "text"}])
def test_a_foreign_safetensors_file_is_refused(folder: Path, metadata: dict[str, str] | None) -> None:
    save_file(state(20), state_path(folder, 20), metadata=metadata)
    with pytest.raises(CorruptCheckpoint):
        load_tensors(state_path(folder, 20))
    assert newest(folder) == 10


def test_tensors_of_another_checkpoint_under_this_ones_header_are_refused(folder: Path) -> None:
    old, new = (state_path(folder, step).read_bytes() for step in (10, 20))
    header = 8 + int.from_bytes(new[:8], "little")
    state_path(folder, 20).write_bytes(new[:header] + old[header:])
    assert len(old) == len(new)
    assert newest(folder) == 10


def test_what_a_killed_writer_left_is_not_read_and_not_in_the_way(folder: Path) -> None:
    killed = folder / ".state-00000030.safetensors.4711"
    killed.write_bytes(state_path(folder, 20).read_bytes()[:100])
    (folder / "state-00000040.safetensors.part").write_bytes(b"")
    (folder / "state-last.safetensors").write_bytes(b"")
    assert newest(folder) == 20
    save_state(folder, 30, state(30))
    assert newest(folder) == 30
    assert state_path(folder, 20).exists()
    assert not state_path(folder, 10).exists()


def in_fork(action: Callable[[], None]) -> int | None:
    """Do it in a process of its own, which may limit or kill itself; return that one's exit status."""
    process = multiprocessing.get_context("fork").Process(target=action)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize("at", ["the first half", "the rename"])
def test_a_writer_killed_at_any_moment_leaves_the_states_before(folder: Path, at: str) -> None:
    def write_half(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(b"half")
        os._exit(9)

    def write_and_die() -> None:
        if at == "the first half":
            checkpoint.save_file = write_half
        else:
            os.fsync = lambda fd: os._exit(9)
        save_state(folder, 30, state(30))

    assert in_fork(write_and_die) == 9
    assert newest(folder) == 20
    assert {path.name for path in folder.glob("state-*")} == {state_path(folder, step).name for step in (10, 20)}


def test_a_full_disk_is_named_and_costs_nothing_that_was_saved(folder: Path, tmp_path: Path) -> None:
    atomic.write_bytes(folder / "model.json", b"{}")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    large = {"model.w": torch.zeros(1000)}
    report = tmp_path / "messages.txt"

    def write_to_a_full_disk() -> None:
        # A file size limit: the system writes what fits and refuses the rest, as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        for write in (
            lambda: save_state(folder, 20, large),
            lambda: save_state(folder, 30, large),
            lambda: atomic.write_bytes(folder / "model.json", b"x" * 4000),
        ):
            with pytest.raises(RunError) as caught:
                write()
            with report.open("a") as file:
                file.write(f"{caught.value}\n")

    assert in_fork(write_to_a_full_disk) == 0
    targets = [state_path(folder, 20), state_path(folder, 30), folder / "model.json"]
    for message, path in zip(report.read_text().splitlines(), targets, strict=True):
        assert message.startswith(f"{path}: could not be written (")
        assert "too large" in message
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("below", ["x.safetensors", "deeper/x.safetensors"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / below
    for write in (lambda: save_tensors(path, state(1)), lambda: atomic.write_bytes(path, b"x")):
        with pytest.raises(RunError) as caught:
            write()
        assert str(caught.value).startswith(f"{path}: could not be written (")
    assert names(tmp_path) == {"file"}
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_target_that_cannot_be_replaced_leaves_no_file_behind(tmp_path: Path) -> None:
    (tmp_path / "x" / "inside").mkdir(parents=True)
    with pytest.raises(RunError, match="could not be written"):
        save_tensors(tmp_path / "x", state(1))
    assert names(tmp_path) == {"x"}


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.json"
    atomic.write_json(path, {"params": 10**9, "name": "größer"})
    atomic.write_json(path, {"params": 1})
    assert json.loads(path.read_text()) == {"params": 1}
    assert names(path.parent) == {"model.json"}


def test_in_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9") / "a.safetensors"
    save_tensors(path, state(1), {"step": "1"})
    tensors, metadata = load_tensors(path)
    assert_identical(tensors, state(1))
    assert metadata["step"] == "1"
