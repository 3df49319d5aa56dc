"""Text encoders of the transformers package, T5 and CLIP's: a folder of safetensors weights and a tokenizer.

A folder is as `save_pretrained` writes it, or holds `text_encoder/` and `tokenizer/`, as pipelines of diffusers do.
Nothing is fetched but what `models.files.assets` knows, and nothing in a folder is run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from bench.data.captions.encode import Tokens
from bench.errors import InputError
from models.files.assets import ASSETS, MissingAsset, cache_folder, locate

EXTRA = "text"
KIND = "text encoder"
# `model_type` of config.json -> the class of transformers, and how many tokens a caption gets by default: those of
# PixArt-alpha, and all that CLIP has.
KINDS = {"t5": ("T5EncoderModel", 120), "clip": ("CLIPTextModel", 77), "clip_text_model": ("CLIPTextModel", 77)}
# One file, or as many as transformers splits large weights into; not variants of them.
WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
TOKENIZER = ("tokenizer.json", "spiece.model", "vocab.json", "merges.txt", "tokenizer_config.json")


class LoadedEncoder:
    """A `bench.data.captions.encode.TextEncoder`: frozen fp32 weights on a device."""

    def __init__(self, network: Any, tokenizer: Any, name: str, sha256: str, tokens: int) -> None:
        transformers: Any = import_module("transformers")
        self.name, self.sha256, self.tokens = name, sha256, tokens
        config = network.config
        self.features = int(config.d_model if config.model_type == "t5" else config.hidden_size)
        self.versions: Mapping[str, str] = {"torch": torch.__version__, "transformers": transformers.__version__}
        self._network, self._tokenizer = network, tokenizer

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tokens:
        """The last hidden states of texts, each padded or cut to S tokens, which its end is one of."""
        taken = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self.tokens, return_tensors="pt"
        )
        lengths = self._tokenizer(list(texts), verbose=False)["input_ids"]
        device = self._network.device
        ids, mask = taken["input_ids"].to(device), taken["attention_mask"].to(device)
        embeddings = self._network(input_ids=ids, attention_mask=mask).last_hidden_state
        return Tokens(embeddings.float(), mask.bool(), sum(len(each) > self.tokens for each in lengths))


def check_installed() -> None:
    """Refuse to encode texts without transformers, which is not imported.

    Raises:
        InputError: it is not installed.
    """
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        raise InputError(
            f'--text-encoder: transformers is not installed; install it with: uv pip install "ditbench[{EXTRA}]"'
        )


def load_text_encoder(name: str, tokens: int | None, device: torch.device, offline: bool) -> LoadedEncoder:
    """Load a text encoder by its name among the assets, its folder's name under <cache>/text/, or its path.

    `tokens`: of each caption; default: as `KINDS` has them.

    Raises:
        InputError: transformers is not installed; there is no such text encoder; or it is none whose files are whole.
        MissingAsset: an asset that is not in the cache, and `offline`.
        OSError: an asset that is damaged or could not be fetched.
    """
    check_installed()
    folder, name = _find(name, offline)
    weights, words = (folder / part if (folder / part).is_dir() else folder for part in ("text_encoder", "tokenizer"))
    kind, most, default = _kind(weights)
    tokens = default if tokens is None else tokens
    if most is not None and tokens > most:
        raise InputError(f"--caption-tokens {tokens}: {name} takes up to {most}")
    files = sorted(path for path in weights.iterdir() if WEIGHTS.fullmatch(path.name))
    if not files:
        raise InputError(f"{weights}: no model.safetensors; accepted: safetensors weights only")
    vocabulary = [words / file for file in TOKENIZER if (words / file).is_file()]
    if not vocabulary:
        raise InputError(f"{words}: no tokenizer; accepted: a folder with one of {', '.join(TOKENIZER[:3])}")
    network, tokenizer = _load(kind, weights, words)
    return LoadedEncoder(network.to(device), tokenizer, name, _sha256([*files, *vocabulary]), tokens)


def _find(name: str, offline: bool) -> tuple[Path, str]:
    """The folder, and how the text encoder is named."""
    known = [key for key, asset in ASSETS.items() if asset.what == KIND]
    if name in known:
        return locate(name, offline), name
    by_hand = cache_folder() / "text"
    parts = Path(name).parts
    if parts and ".." not in parts and not Path(name).is_absolute() and (by_hand / name).is_dir():
        return by_hand / name, name
    if Path(name).is_dir():
        return Path(name), Path(name).resolve().name
    raise MissingAsset(
        f"--text-encoder {name}: not in the cache; accepted: {', '.join([*known, ''])}the name of a folder under "
        f"{by_hand}, or the path of one, with config.json, model.safetensors and a tokenizer"
    )


def _kind(folder: Path) -> tuple[str, int | None, int]:
    """The class of transformers, the most tokens that it takes, and how many are taken by default."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
        kind = config["model_type"]
        positions = {**config, **config.get("text_config", {})}.get("max_position_embeddings", 77)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(f"{folder}: not a text encoder's folder (no config.json that says so)") from None
    if kind not in KINDS:
        raise InputError(f"{path}: model_type: {kind!r}; accepted: {', '.join(KINDS)}")
    name, default = KINDS[kind]
    if kind == "t5":
        return name, None, default
    if not isinstance(positions, int) or isinstance(positions, bool) or positions < 1:
        raise InputError(f"{path}: max_position_embeddings: {positions!r}; accepted: a whole number above 0")
    return name, positions, min(default, positions)


def _load(kind: str, weights: Path, words: Path) -> tuple[Any, Any]:
    """Network and tokenizer, every weight from the files: transformers would fill in random ones with a warning."""
    transformers: Any = import_module("transformers")
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # what it warns of is an error here, or no matter, such as a decoder
    try:
        network, report = getattr(transformers, kind).from_pretrained(
            weights, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(words, local_files_only=True)
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        problem = " ".join(str(error).split())
        raise InputError(f"{weights}: the text encoder cannot be loaded ({problem})") from None
    except Exception as error:  # of safetensors and tokenizers, which have their own
        raise InputError(f"{weights}: the text encoder cannot be loaded ({type(error).__name__}: {error})") from None
    finally:
        transformers.logging.set_verbosity(verbosity)
    for problem in ("missing_keys", "mismatched_keys"):
        if report.get(problem):
            what, first, count = problem.split("_")[0], sorted(map(str, report[problem]))[0], len(report[problem])
            raise InputError(f"{weights}: {count} {what} weights, such as {first}; the file does not fit config.json")
    if tokenizer.pad_token_id is None:
        raise InputError(f"{words}: the tokenizer has no padding token")
    network = network.float().eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            raise InputError(f"{weights}: {name} has values that are not finite")
    return network, tokenizer


def _sha256(paths: Sequence[Path]) -> str:
    """Of the weights and of what makes tokens, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
