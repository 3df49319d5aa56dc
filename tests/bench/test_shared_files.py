"""Files of a folder that several people share: the umask and the folder's group decide, whatever wrote them."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from file_server import FileServer
from recipes import tiny

from bench.data.latent_index import StoredVae
from bench.data.shards import Settings, agree
from bench.errors import RunError
from bench.files import jsonl
from bench.files.atomic import replace, write_json
from bench.files.checkpoint import save_tensors
from bench.files.run_folder import lock_path, locked, record_failure, write_config
from models.files.assets import _locked as locked_asset
from models.files.download import download
from sweeps.slurm.snapshot import copy_code

# Nobody has it as a group of their own.
GROUP = 54321
LATENTS = Settings(
    vae=StoredVae(name="tiny-vae", sha256="ab" * 32),
    scale_factor=1.0,
    latent_shape=(4, 2, 3),
    image_size=16,
    precision="fp32",
    images=1,
    images_sha256="cd" * 32,
    shard_size=1,
)
is_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root gives a folder to another group or becomes another user"
)


@pytest.fixture(params=[0o002, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write_all(folder: Path) -> None:
    """A file of each way to write one."""
    folder.mkdir(exist_ok=True)
    write_config(tiny(), folder / "run")
    write_json(folder / "run" / "model.json", {})
    save_tensors(folder / "run" / "checkpoints" / "state-00000001.safetensors", {"x": torch.zeros(3)})
    save_tensors(folder / "run" / "checkpoints" / "state-00000001.safetensors", {"x": torch.ones(3)})  # over it
    jsonl.append(folder / "run" / "train.jsonl", {"step": 1})
    record_failure(folder / "run", "training", "it failed", 1, {"attempt": "1"})
    with locked(folder / "run"), locked_asset(folder / "assets" / "big.npz"):
        pass
    copy_code(folder / "code")
    agree(folder / "latents", LATENTS)


def test_every_file_and_folder_has_the_umask_s_permissions(tmp_path: Path, umask: int) -> None:
    write_all(tmp_path / "study")
    for path in (tmp_path / "study").rglob("*"):
        assert mode(path) == (0o777 if path.is_dir() else 0o666) & ~umask, path


@is_root
def test_all_that_is_made_in_a_shared_folder_is_its_group_s(tmp_path: Path, umask: int) -> None:
    os.chown(tmp_path, -1, GROUP)
    tmp_path.chmod(0o2775)
    write_all(tmp_path / "study")
    for path in (tmp_path / "study").rglob("*"):
        assert path.stat().st_gid == GROUP, path
        assert not path.is_dir() or mode(path) & stat.S_ISGID, path


def test_the_checkout_s_permissions_are_not_those_of_the_copied_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout that is its owner's alone, or that nobody may write, as where an administrator installed it."""
    source = tmp_path / "checkout" / "models"
    source.mkdir(parents=True)
    (source / "dit.py").write_text("x = 1\n")
    (source / "dit.py").chmod(0o400)
    source.chmod(0o500)
    monkeypatch.setattr("sweeps.slurm.snapshot.ROOT", tmp_path / "checkout")
    monkeypatch.setattr("sweeps.slurm.snapshot.FOLDERS", ("models",))
    before = os.umask(0o022)
    copy_code(tmp_path / "code")
    os.umask(before)
    source.chmod(0o700)
    assert (mode(tmp_path / "code" / "models"), mode(tmp_path / "code" / "models" / "dit.py")) == (0o755, 0o644)


def test_what_a_writer_of_the_same_number_left_on_another_machine_is_in_nobody_s_way(tmp_path: Path) -> None:
    (tmp_path / f".x.json.{os.getpid()}").touch(0o444)
    write_json(tmp_path / "x.json", {"x": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_failure_leaves_nothing_beside_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"x": 1})

    def fail(aside: Path) -> None:
        aside.write_text("half")
        raise OSError("disk full")

    with pytest.raises(RunError, match="disk full"):
        replace(path, fail)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x.json", '{\n "x": 1\n}\n')]


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that all users may write; pytest's are within one of its own user alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


# As another user: hold the lock that root's file is, and see that root holds it.
OTHER = """
import os, sys
from pathlib import Path
sys.path[:0] = {path!r}
import bench.files.run_folder as run_folder, models.files.assets
folder = Path({folder!r})
os.setgid(54322); os.setgroups([]); os.setuid(54322)
assert run_folder.is_locked(run_folder.lock_path(folder)) == {held}
try:
    with run_folder.locked(folder): print("taken")
except run_folder.RunLocked: print("refused")
with models.files.assets._locked(folder / "weights.pt"): pass
"""


@is_root
@pytest.mark.parametrize("held", [True, False])
def test_the_lock_of_another_user_s_file_works_where_it_can_only_be_read(shared: Path, held: bool) -> None:
    with locked(shared), locked_asset(shared / "weights.pt"):
        pass
    lock_path(shared).chmod(0o644)
    with lock_path(shared).open() as lock:
        if held:
            fcntl.flock(lock, fcntl.LOCK_EX)
        code = OTHER.format(path=sys.path, folder=str(shared), held=held)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert (done.stdout, done.returncode) == ("refused\n" if held else "taken\n", 0), done.stderr


@is_root
def test_a_download_that_another_user_left_half_done_is_begun_anew(shared: Path) -> None:
    part = shared / ".big.part"
    part.write_bytes(b"begun")
    part.with_name(f"{part.name}.version").write_text("of theirs")
    with FileServer({"/big": b"the whole"}) as server:
        os.setresuid(54322, 54322, 0)
        try:
            download(server.url("/big"), part)
        finally:
            os.setresuid(0, 0, 0)
    assert part.read_bytes() == b"the whole"
    assert part.stat().st_uid == 54322
