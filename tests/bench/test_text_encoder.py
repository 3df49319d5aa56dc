"""Text encoders: which folder is one, before it is loaded; and, where transformers is installed, what it makes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.data.captions import text_encoder
from bench.data.captions.text_encoder import load_text_encoder
from bench.errors import InputError
from models.files.assets import MissingAsset

CPU = torch.device("cpu")
TEXTS = ["a dog", "a dog in the snow", "the snow", "a a a a a a a a"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DITBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.fixture
def folder(cache: Path) -> Path:
    """What looks like a T5, and is not loaded."""
    folder = cache / "text" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "t5", "d_model": 16}))
    (folder / "tokenizer.json").write_text("{}")
    save_file({"weight": torch.zeros(2)}, folder / "model.safetensors")
    return folder


def remade(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), r"not a text encoder's folder \(no config.json"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), r"not a text encoder's folder"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), r"not a text encoder's folder"),
    "no kind": (lambda f: (f / "config.json").write_text("{}"), r"not a text encoder's folder"),
    "another kind": (
        lambda f: remade(f / "config.json", model_type="bert"),
        r"model_type: 'bert'; accepted: t5, clip, ",
    ),
    "odd positions": (
        lambda f: remade(f / "config.json", model_type="clip", text_config={"max_position_embeddings": "many"}),
        r"max_position_embeddings: 'many'; accepted: a whole number above 0",
    ),
    "pickled weights": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        r"no model.safetensors; accepted: safetensors weights only",
    ),
    "no tokenizer": (
        lambda f: (f / "tokenizer.json").unlink(),
        r"no tokenizer; accepted: a folder with one of tokeniz",
    ),
    "of a pipeline, without weights": (
        lambda f: (f / "text_encoder").mkdir(),
        r"mine/text_encoder: not a text encoder's",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_text_encoder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(text_encoder, "check_installed", lambda: None)
    change, problem = REFUSED[name]
    change(folder)
    for given in ("mine", str(folder)):
        with pytest.raises(InputError, match=problem) as caught:
            load_text_encoder(given, None, CPU, offline=True)
        assert "\n" not in str(caught.value)


def test_more_tokens_than_it_has_places_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_encoder, "check_installed", lambda: None)
    remade(folder / "config.json", model_type="clip_text_model", max_position_embeddings=32)
    with pytest.raises(InputError, match=r"--caption-tokens 33: mine takes up to 32"):
        load_text_encoder("mine", 33, CPU, offline=True)


def test_one_that_is_not_cached_is_refused_offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_encoder, "check_installed", lambda: None)
    known = "openai/clip-vit-large-patch14"
    with pytest.raises(MissingAsset, match=f"config.json: missing; `ditbench prepare {known}` on a machine with a net"):
        load_text_encoder(known, None, CPU, offline=True)
    for unknown in ("t5", "../t5", "/nowhere", "google/t5-v1_1-xxl", "stabilityai/sd-vae-ft-ema"):
        with pytest.raises(
            MissingAsset, match=rf"--text-encoder {unknown}: not in the cache; accepted: .*{known}"
        ) as caught:
            load_text_encoder(unknown, None, CPU, offline=True)
        assert "\n" not in str(caught.value)
    assert not cache.exists()


# --- with transformers


@pytest.fixture
def tiny(cache: Path) -> Path:
    """A T5 of random weights whose tokens are words."""
    transformers: Any = pytest.importorskip("transformers")
    tokenizers: Any = pytest.importorskip("tokenizers")
    words = {word: k for k, word in enumerate(("<pad>", "</s>", "<unk>", "a", "dog", "in", "the", "snow"))}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder = cache / "text" / "tiny"
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": len(words)}
    transformers.T5EncoderModel(transformers.T5Config(**sizes)).save_pretrained(folder)
    return folder


def test_padding_does_not_change_an_embedding_and_what_is_cut_is_counted(tiny: Path) -> None:
    encoder = load_text_encoder("tiny", 6, CPU, offline=True)
    assert (encoder.name, encoder.tokens, encoder.features) == ("tiny", 6, 16)
    together = encoder(TEXTS)
    assert together.embeddings.shape == (4, 6, 16)
    assert together.embeddings.dtype == torch.float32
    assert together.mask.sum(1).tolist() == [3, 6, 3, 6]  # words and an end
    assert together.cut == 1
    longer = load_text_encoder(str(tiny), 12, CPU, offline=True)(TEXTS)
    for row in range(3):
        taken = together.mask[row]
        assert torch.allclose(together.embeddings[row][taken], longer.embeddings[row, :6][taken], atol=1e-5)
    alone = encoder(TEXTS[1:2])
    assert torch.allclose(alone.embeddings[0], together.embeddings[1], atol=1e-5)


def test_its_checksum_is_of_weights_and_words(tiny: Path) -> None:
    before = load_text_encoder("tiny", 6, CPU, offline=True).sha256
    assert load_text_encoder("tiny", 6, CPU, offline=True).sha256 == before
    weights = load_file(tiny / "model.safetensors")
    first = sorted(weights)[0]
    save_file({**weights, first: weights[first] + 1}, tiny / "model.safetensors", {"format": "pt"})
    assert load_text_encoder("tiny", 6, CPU, offline=True).sha256 != before


def test_weights_that_are_missing_or_not_finite_are_refused(tiny: Path) -> None:
    weights = load_file(tiny / "model.safetensors")
    name = next(key for key in weights if "SelfAttention.q" in key)
    save_file({**weights, name: torch.full_like(weights[name], np.nan)}, tiny / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="not finite"):
        load_text_encoder("tiny", 6, CPU, offline=True)
    save_file({k: v for k, v in weights.items() if k != name}, tiny / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"missing weights, such as .*SelfAttention.q"):
        load_text_encoder("tiny", 6, CPU, offline=True)
