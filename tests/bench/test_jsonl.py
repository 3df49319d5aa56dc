"""Metric files: what was appended is read, what a crash left half written is not."""

from __future__ import annotations

import json
import multiprocessing
import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import RunError
from bench.files import jsonl

ROWS: list[dict[str, Any]] = [{"step": step, "loss": 1 / step} for step in (10, 20, 30)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A metric file with `ROWS`."""
    path = tmp_path / "train.jsonl"
    for row in ROWS:
        jsonl.append(path, row)
    return path


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(st.characters(exclude_categories=[]))
)


@settings(deadline=None)
@given(rows=st.lists(st.dictionaries(st.text(max_size=8), values, max_size=4), max_size=6))
def test_rows_read_back_as_they_were_appended(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("metrics") / "train.jsonl"
    for row in rows:
        jsonl.append(path, row)
    assert jsonl.read(path) == rows


def test_a_file_is_one_object_a_line_and_appending_leaves_earlier_lines_alone(path: Path) -> None:
    before = path.read_bytes()
    assert [json.loads(line) for line in before.splitlines()] == ROWS
    jsonl.append(path, {"step": 40})
    assert path.read_bytes() == before + b'{"step": 40}\n'


def test_no_file_is_no_rows(tmp_path: Path) -> None:
    assert jsonl.read(tmp_path / "none.jsonl") == []
    jsonl.cut_after(tmp_path / "none.jsonl", 10)
    assert list(tmp_path.iterdir()) == []


def test_a_last_line_torn_at_any_byte_is_left_out(path: Path) -> None:
    whole = path.read_bytes()
    second_end = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(second_end, len(whole)):
        path.write_bytes(whole[:cut])
        assert jsonl.read(path) == ROWS[:2], cut
    path.write_bytes(whole)
    assert jsonl.read(path) == ROWS


@pytest.mark.parametrize("step", [0, 9, 10, 25, 30, 99])
def test_cut_after_keeps_the_rows_up_to_the_step(path: Path, step: int) -> None:
    jsonl.cut_after(path, step)
    assert jsonl.read(path) == [row for row in ROWS if row["step"] <= step]
    assert [child.name for child in path.parent.iterdir()] == ["train.jsonl"]


def test_cut_after_drops_a_torn_line_so_that_the_next_row_stands_alone(path: Path) -> None:
    with path.open("a") as file:
        file.write('{"step": 40, "lo')
    jsonl.cut_after(path, 40)
    jsonl.append(path, {"step": 40})
    assert jsonl.read(path) == [*ROWS, {"step": 40}]


@pytest.mark.parametrize("torn", [b"{", b'{"step": 40, "lo', b"\0" * 700, b"x" * 3 * jsonl.TAIL_BYTES, b'{"step": 40}'])
def test_a_row_is_added_in_the_place_of_a_torn_line(torn: bytes, path: Path, tmp_path: Path) -> None:
    """A full disk, or a loss of power, leaves one; no file may become unreadable by it."""
    with path.open("ab") as file:
        file.write(torn)
    jsonl.append(path, {"step": 50})
    assert jsonl.read(path) == [*ROWS, {"step": 50}]
    alone = tmp_path / "failures.jsonl"
    alone.write_bytes(torn)
    jsonl.append(alone, {"step": 50})
    assert jsonl.read(alone) == [{"step": 50}]


@pytest.mark.parametrize("line", [b"{", b"", b'{"step": 20, "lo', b"loss 0.5", b"20", b"[1]", b'"text"', b"\xff\xfe{}"])
def test_a_damaged_inner_line_is_named(path: Path, line: bytes) -> None:
    first, _, third = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, line, third, b""]))
    for use in (jsonl.read, lambda path: jsonl.cut_after(path, 10)):
        with pytest.raises(RunError, match="line 2 is not") as caught:
            use(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_damaged_ends_are_passed_by_where_only_the_last_row_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    assert jsonl.last_row(path) is None
    path.write_text('{"step": 1}\n{"step": 2}\n[3]\nnull\n\0\0\0\n{"step": 4')
    assert jsonl.last_row(path) == {"step": 2}
    path.write_text('{"step": 1')
    assert jsonl.last_row(path) is None


def test_a_file_that_cannot_be_appended_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        jsonl.append(tmp_path, {"step": 1})
    assert str(caught.value).startswith(f"{tmp_path}: could not be written (")


def test_a_row_that_no_longer_fits_on_the_disk_costs_no_earlier_row(path: Path, tmp_path: Path) -> None:
    report = tmp_path / "message.txt"
    limit = path.stat().st_size + 5

    def append_to_a_full_disk() -> None:
        # A file size limit: the system writes what fits and refuses the rest, as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(RunError) as caught:
            jsonl.append(path, {"step": 40, "loss": 0.5})
        report.write_text(f"{caught.value}"[:limit])

    process = multiprocessing.get_context("fork").Process(target=append_to_a_full_disk)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert report.read_text().startswith(f"{path}: could not be written ("[:limit])
    assert jsonl.read(path) == ROWS


def test_rows_without_a_step_are_named_before_a_file_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    written = '{"step": 1}\n{"step": "2"}\n'
    path.write_text(written)
    with pytest.raises(RunError, match=r"train\.jsonl: line 2: 'step' is '2'"):
        jsonl.cut_after(path, 1)
    assert path.read_text() == written


def test_a_line_that_is_nested_too_deeply_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"step": 1}\n' + "[" * 5000 + "\n")
    assert jsonl.last_row(path) == {"step": 1}
    with pytest.raises(RunError, match="line 2 is not a JSON object"):
        jsonl.read(path)
