"""Captions beside latents: what is written, which part of it, what training and sampling read, and damage."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captioned_latents import (
    FEATURES,
    OF_CAPTIONS,
    SECTION,
    TOKENS,
    WordEncoder,
    captions,
    images,
    vector,
    write_captions,
    write_latents,
)
from photos import files

from bench.data.captions.encode import Tokens
from bench.data.captions.file import read_caption_file
from bench.data.captions.index import CaptionIndex
from bench.data.captions.stored import StoredCaptions
from bench.data.encode import Part
from bench.errors import InputError, RunError
from bench.recipe.parts import DataConfig
from models.conditions import Captions

CPU = torch.device("cpu")
DATA = DataConfig.model_validate({"name": "photos", **SECTION, **OF_CAPTIONS})


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DITBENCH_DATA", str(tmp_path))
    return tmp_path / "photos"


@pytest.fixture
def folder(root: Path) -> Path:
    """Of whole captions, in that of their latents."""
    assert write_captions(root, write_latents(root)).index is not None
    return root / "captions"


def bank() -> StoredCaptions:
    found = DATA.caption_bank()
    assert isinstance(found, StoredCaptions)
    return found


def assert_is(found: Captions, texts: list[str]) -> None:
    """Every word's vector at its place, 0 and a mask beyond the last, nothing dropped."""
    assert (found.embeddings.dtype, found.mask.dtype) == (torch.float32, torch.bool)
    assert not found.dropped.any()
    assert len(found.embeddings) == len(texts)
    for embedding, mask, text in zip(found.embeddings, found.mask, texts, strict=True):
        words = text.split()[:TOKENS]
        assert mask.tolist() == [place < len(words) for place in range(TOKENS)]
        expected = torch.zeros(TOKENS, FEATURES)
        expected[: len(words)] = torch.stack([vector(word) for word in words])
        assert torch.equal(embedding, expected), text


# --- what is written


def test_row_i_is_the_caption_of_image_i(folder: Path) -> None:
    wanted = torch.tensor([13, 0, 7, 7, 4, 1])
    assert_is(bank().take(wanted, CPU), [captions()[place] for place in wanted])
    assert len(bank()) == 14
    index = CaptionIndex.model_validate_json((folder / "index.json").read_bytes())
    assert index.cut == sum(len(text.split()) > TOKENS for text in captions()) > 0
    assert np.load(folder / "shard-00000.npy").dtype == np.float16


def test_training_reads_latents_with_their_captions(folder: Path) -> None:
    wanted, random = torch.tensor([3, 12, 9, 0]), torch.Generator().manual_seed(0)
    data, labelled = DATA.load(CPU), DataConfig.model_validate({"name": "photos", **SECTION}).load(CPU)
    x, said = data.batch(wanted, slice(1, 4), random)
    assert isinstance(said, Captions)
    assert_is(said, [captions()[place] for place in (12, 9, 0)])
    assert torch.equal(x, labelled.batch(wanted, slice(1, 4), torch.Generator().manual_seed(0))[0])
    data.read_ahead(wanted[2:])  # by a thread
    ahead = data.batch(wanted, slice(2, 4), random)[1]
    assert isinstance(ahead, Captions)
    assert_is(ahead, [captions()[place] for place in (9, 0)])


def test_images_that_were_left_out_have_no_caption(root: Path) -> None:
    corrupt = (0, 5, 8, 9, 10, 11)  # the third shard has none left
    assert write_captions(root, write_latents(root, corrupt)).index is not None
    data = DataConfig.model_validate({"name": "photos", **SECTION, **OF_CAPTIONS, "length": 8})
    found = data.caption_bank()
    assert found is not None
    kept = [text for place, text in enumerate(captions()) if place not in corrupt]
    assert_is(found.take(torch.arange(8), CPU), kept)


def test_parts_make_the_files_that_one_process_makes(root: Path, tmp_path: Path, folder: Path) -> None:
    other = tmp_path / "other"
    index = write_latents(other)
    assert write_captions(other, index, part=Part(1, 2)).missing == 2
    assert not (other / "captions" / "index.json").exists()
    last = write_captions(other, index, part=Part(0, 2))
    assert (last.made, last.kept, last.missing) == (2, 0, 0)
    assert files(other / "captions") == files(folder)


def test_what_is_whole_is_kept_and_what_is_not_made_again(root: Path, folder: Path) -> None:
    index, before = write_latents(root), files(folder)
    assert (write_captions(root, index).made, files(folder)) == (0, before)
    for name in ("shard-00001.npy", "mask-00002.npy"):
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)
    (folder / "shard-00003.json").unlink()
    (folder / "mask-00000.npy").unlink()
    again = write_captions(root, index)
    assert (again.made, again.kept, files(folder)) == (4, 0, before)
    texts = captions()
    texts[6] = "eel"
    assert write_captions(root, index, texts).made == 1
    assert_is(bank().take(torch.tensor([6]), CPU), ["eel"])


def test_another_text_encoder_does_not_add_to_what_is_there(root: Path, folder: Path) -> None:
    index = write_latents(root)
    with pytest.raises(InputError, match=r"settings.json: text_encoder: words@cdcdcdcd there, words@12121212 now"):
        write_captions(root, index, encoder=WordEncoder("12" * 32))


class Faulty(WordEncoder):
    """Of captions with some word no number, or no token."""

    def __call__(self, texts: Any) -> Tokens:
        made = super().__call__(texts)
        for row, text in enumerate(texts):
            if "number7" in text:
                made.embeddings[row, 1, 2] = 1e5
            if "number8" in text:
                made.mask[row] = False
        return made


def test_what_float16_cannot_hold_is_not_written(root: Path) -> None:
    with pytest.raises(RunError, match=r"by words, 'dog small old in number7' has embeddings that are not finite"):
        write_captions(root, write_latents(root), encoder=Faulty())
    assert not (root / "captions" / "shard-00001.npy").exists()
    texts = [text.replace("number7", "") for text in captions()]
    with pytest.raises(RunError, match="has no token"):
        write_captions(root, write_latents(root), texts, encoder=Faulty())


# --- damage


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def changed(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no masks": (lambda f: (f / "mask-00001.npy").unlink(), r"mask-00001.npy: missing; captions without masks"),
    "a shorter mask": (
        lambda f: np.save(f / "mask-00001.npy", np.ones((4, TOKENS - 1), bool)),
        r"mask-00001.npy: its SHA-256 begins with",
    ),
    "an altered mask": (lambda f: flipped(f / "mask-00000.npy"), r"mask-00000.npy: its SHA-256 begins with"),
    "no .npy": (lambda f: (f / "mask-00000.npy").write_text("true"), r"mask-00000.npy: not a whole .npy file"),
    "altered embeddings": (lambda f: flipped(f / "shard-00002.npy"), r"shard-00002.npy: its SHA-256 begins with"),
    "a cut file": (
        lambda f: (f / "shard-00002.npy").write_bytes((f / "shard-00002.npy").read_bytes()[:-8]),
        r"shard-00002.npy: ",
    ),
    "no embeddings": (lambda f: (f / "shard-00000.npy").unlink(), r"shard-00000.npy: missing; `ditbench encode` with"),
    "no index": (lambda f: (f / "index.json").unlink(), r"captions/index.json: no such file; `ditbench encode --capt"),
    "an index without masks": (
        lambda f: changed(f / "index.json", masks=[]),
        r"index.json: masks: not one for each caption",
    ),
    "an index of less": (lambda f: changed(f / "index.json", count=13), r"count: 13, but its shards hold 14"),
    "an index of other images": (
        lambda f: changed(f / "index.json", images_sha256="00" * 32),
        r"index.json: of other images than the latents beside it",
    ),
    "a key too many": (lambda f: changed(f / "index.json", more=1), r"index.json: more: "),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_captions_are_refused_and_named(folder: Path, name: str) -> None:
    damage, problem = DAMAGE[name]
    damage(folder)
    with pytest.raises(InputError, match=problem) as caught:
        DATA.load(CPU)
    assert "\n" not in str(caught.value)


def test_captions_are_those_of_the_latents_that_are_there_now(root: Path, folder: Path) -> None:
    """Latents that were encoded again with another image left out: row i is no longer of image i."""
    write_latents(root, corrupt=(1,))
    section = {**SECTION, **OF_CAPTIONS, "length": 13}
    with pytest.raises(InputError, match=r"of other images than the latents beside it \(14, 13\)"):
        DataConfig.model_validate({"name": "photos", **section}).load(CPU)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"text_encoder": "t5"}, r"data.text_encoder: t5, but .*captions/index.json has words"),
        (
            {"caption_tokens": 6},
            r"captions of 6 tokens with 8 features, but .* has captions of 5 tokens with 8 features",
        ),
        ({"caption_features": 16}, r"captions of 5 tokens with 16 features, but .* 5 tokens with 8 features"),
    ],
)
def test_other_captions_than_the_recipe_s_are_refused(folder: Path, changes: dict[str, Any], problem: str) -> None:
    data = DataConfig.model_validate({"name": "photos", **SECTION, **OF_CAPTIONS, **changes})
    with pytest.raises(InputError, match=problem):
        data.load(CPU)


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        (
            {"text_encoder": "words"},
            "caption_tokens: missing; captions need text_encoder, caption_tokens, caption_feat",
        ),
        ({"caption_tokens": 5, "caption_features": 8}, "text_encoder: missing"),
        ({**OF_CAPTIONS, "caption_tokens": 0}, "caption_tokens: 0; accepted: greater than 0"),
        ({**OF_CAPTIONS, "caption_features": "many"}, "caption_features"),
    ],
)
def test_half_of_what_captions_need_is_refused(section: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        DataConfig.model_validate({"name": "photos", **SECTION, **section})


# --- the file of texts


def lines_of(texts: list[str]) -> list[str]:
    return [json.dumps({"image": path, "caption": text}) for path, text in zip(images().paths, texts, strict=True)]


def test_captions_are_of_the_images_that_they_name(tmp_path: Path) -> None:
    texts = [*captions()[:13], "une photo, « à la neige »"]
    path = tmp_path / "captions.jsonl"
    path.write_text("\n\n".join(reversed(lines_of(texts))) + "\r\n", encoding="utf-8")
    assert read_caption_file(path, images()) == tuple(texts)


FAULTS: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "missing": (
        lambda lines: lines[2:11],
        r"no caption of 5 of 14 images of photos: cat/0.png, cat/1.png, eel/2.png, ",
    ),
    "unknown": (
        lambda lines: [*lines, '{"image": "cat/9.png", "caption": "a"}'],
        r"line 15: image cat/9.png is not in photos; accepted: paths under it, such as cat/0.png",
    ),
    "by its whole path": (
        lambda lines: [line.replace("cat/0", "photos/cat/0") for line in lines],
        r"line 1: image photos/cat/0.png is not in photos",
    ),
    "twice": (lambda lines: [*lines, lines[3]], r"line 15: image cat/3.png has a caption in line 4 already"),
    "no JSON": (lambda lines: ["cat/0.png: a cat", *lines], r"line 1: no JSON"),
    "a list": (lambda lines: [*lines, "[1]"], r"line 15: is no mapping"),
    "another key": (
        lambda lines: [line.replace('"caption"', '"text"') for line in lines],
        r"line 1: has the keys image, text; accepted: {\"image\": \"PATH\", \"caption\": \"TEXT\"}",
    ),
    "empty": (
        lambda lines: [*lines[:-1], '{"image": "eel/4.png", "caption": " "}'],
        r"line 14: caption: ' '; accepted",
    ),
    "no text": (lambda lines: [*lines[:-1], '{"image": "eel/4.png", "caption": 1}'], r"line 14: caption: 1; accepted"),
    "none": (lambda lines: [], r"no caption of 14 of 14 images"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_of_captions_that_do_not_fit_is_refused(tmp_path: Path, name: str) -> None:
    change, problem = FAULTS[name]
    path = tmp_path / "captions.jsonl"
    path.write_text("\n".join(change(lines_of(captions()))))
    with pytest.raises(InputError, match=f"{re.escape(str(path))}.*{problem}") as caught:
        read_caption_file(path, images())
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_caption_file(tmp_path / "none.jsonl", images())
    (tmp_path / "latin.jsonl").write_bytes('{"image": "cat/0.png", "caption": "caf\xe9"}'.encode("latin-1"))
    with pytest.raises(InputError, match="line 1: caption: is not UTF-8"):
        read_caption_file(tmp_path / "latin.jsonl", images())
