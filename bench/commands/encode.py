"""`ditbench encode`: a folder of images to latents for training. Modules are loaded inside: help is instant."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bench.commands.options import OfflineOption
from bench.data import DATA, data_part
from bench.data.latent_sets import OWN, LatentOptions, LatentSet, latent_facts
from bench.device import Device
from bench.errors import InputError

if TYPE_CHECKING:
    from bench.data.captions.encode import EncodedCaptions, TextEncoder
    from bench.data.captions.index import CaptionIndex
    from bench.data.encode import Encoded, Part
    from bench.data.latent_index import LatentIndex

WORDNET_ID = re.compile(r"n\d{8}")
# (number, first number, how many) of an array's task, and (rank, how many) of a process within it.
ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT")
# Not SLURM_NTASKS, which a batch script has, too, that runs once and not once for each of its tasks.
RANKS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))
LOCAL_RANKS = ("LOCAL_RANK", "SLURM_LOCALID")


def encode(
    data: Annotated[Path, typer.Argument(help="A folder with a folder of images for each class.")],
    vae: Annotated[str, typer.Option(help="The autoencoder: its name, or the path of a diffusers AutoencoderKL.")],
    image_size: Annotated[
        int, typer.Option(min=1, help="Width and height in pixels; the paper's are 256 and 512.")
    ] = 256,
    out: Annotated[
        Path | None,
        typer.Option(help="Where the latents go; default: NAME-SIZE-latents in $DITBENCH_DATA (else in data)."),
    ] = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Images per file.")] = 4096,
    batch_size: Annotated[int, typer.Option(min=1, help="Images encoded at a time.")] = 16,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that decode images; default: one per core, at most 8.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Where the autoencoder runs.")] = "cpu",
    precision: Annotated[Literal["fp32", "tf32"], typer.Option(help="tf32 on CUDA only.")] = "fp32",
    part: Annotated[
        str | None,
        typer.Option(help="I/N, from 1: every N-th shard; default: from SLURM's array and torchrun's ranks."),
    ] = None,
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave out images that cannot be read; index.json lists them.")
    ] = False,
    verify_images: Annotated[
        bool,
        typer.Option(
            "--verify-images",
            help="Compare the content of all images with what was encoded; default: where size or times differ.",
        ),
    ] = False,
    offline: OfflineOption = False,
    captions: Annotated[
        Path | None,
        typer.Option(help='Captions, too: a line {"image": "dog/1.jpg", "caption": "a dog"} of each image.'),
    ] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(help="For --captions: a T5 or CLIP's, by its name, or the path of a transformers folder."),
    ] = None,
    caption_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens a caption is padded or cut to; default: 120 of T5, 77 of CLIP."),
    ] = None,
) -> None:
    """Encode a folder of images to latents: the posterior of each and of its mirror image, for training.

    The crop is ADM's. Interrupted, the same command continues; once all is there, it checks every file. Several
    processes share the work with --part, in a SLURM array, or under torchrun.

    With --captions, a folder beside the latents gets an embedding of each image's caption.
    """
    _check_captions(captions, text_encoder, caption_tokens)
    chosen = _parse_part(part) if part else _part_of_environment()
    from bench.data.captions.file import read_caption_file
    from bench.data.image_folder import list_images

    images = list_images(data)
    texts = None if captions is None else read_caption_file(captions, images)
    out = out or _default_out(data, images.classes, image_size)
    from bench.data.encode import encode as encode_images
    from bench.data.vae import load_vae
    from bench.parallel import prepare_device

    where = prepare_device(device, precision, _local_rank())
    # Both before any image is read: what is missing must not be told after hours.
    encoder = None if text_encoder is None else _load_text_encoder(text_encoder, caption_tokens, where, offline)
    autoencoder = load_vae(vae, where, offline)
    workers = min(8, _cores()) if workers is None else workers
    with _progress("images") as on_images:
        encoded = encode_images(
            images,
            out,
            autoencoder,
            image_size,
            precision,
            shard_size,
            batch_size,
            workers,
            chosen,
            skip_corrupt,
            verify_images,
            on_images,
        )
    encoded_captions = None
    if texts is not None and encoder is not None:
        from bench.data.captions.encode import encode_captions

        with _progress("captions") as on_captions:
            encoded_captions = encode_captions(
                images, texts, out, encoded.index, encoder, shard_size, batch_size, chosen, on_captions
            )
    _report(out, encoded, encoded_captions, chosen)


def _check_captions(captions: Path | None, text_encoder: str | None, tokens: int | None) -> None:
    """Refuse half of what captions need."""
    if captions is None and (text_encoder is not None or tokens is not None):
        given = f"--text-encoder {text_encoder}" if text_encoder is not None else f"--caption-tokens {tokens}"
        raise InputError(f"{given}: of which captions? --captions is missing")
    if captions is not None and text_encoder is None:
        raise InputError(f"--captions {captions}: --text-encoder is missing, which makes embeddings of them")


def _load_text_encoder(name: str, tokens: int | None, device: Any, offline: bool) -> TextEncoder:
    from bench.data.captions.text_encoder import load_text_encoder

    return load_text_encoder(name, tokens, device, offline)


def _report(out: Path, encoded: Encoded, captions: EncodedCaptions | None, part: Part) -> None:
    whose = f"part {part.index + 1}/{part.count}: " if part.count > 1 else ""
    typer.echo(f"{out}: {whose}{encoded.made} shards made, {encoded.kept} found whole by their checksums")
    if captions is not None:
        typer.echo(f"{out / 'captions'}: {whose}{captions.made} shards made, {captions.kept} found whole")
    index = encoded.index
    if index is None:
        damaged = f" ({', '.join(path.name for path in encoded.damaged)}: damaged)" if encoded.damaged else ""
        missing = f"{encoded.missing} shards of other parts are missing{damaged}"
        typer.echo(f"{missing}; the last part to finish writes index.json")
        return
    corrupt = f", {len(index.corrupt)} corrupt ones left out" if index.corrupt else ""
    if captions is not None and captions.index is None:
        typer.echo(
            f"{captions.missing} shards of captions of other parts are missing; the last to finish writes the index"
        )
    with_captions = ""
    if captions is not None and captions.index is not None:
        with_captions = " with captions"
        if captions.index.cut:
            typer.echo(f"{captions.index.cut:,} captions have more than {captions.index.tokens} tokens and were cut")
    typer.echo(
        f"the set is whole: {index.count:,} images of {index.num_classes:,} classes{with_captions}{corrupt}; for a "
        "recipe:\n"
    )
    typer.echo(_for_a_recipe(index, None if captions is None else captions.index))


def _for_a_recipe(index: LatentIndex, captions: CaptionIndex | None) -> str:
    """The section of a recipe, or why there is none."""
    part = data_part(index.name) if index.name in DATA.builtin else OWN
    if not isinstance(part, LatentSet):
        return f"none: {index.name} is another data set's name; give this folder another"
    size = {"length": index.count, "num_classes": index.num_classes, "image_size": index.image_size}
    options = {"vae": index.vae.name, **({} if part.known else size)}
    try:
        facts = part.facts(index.name, LatentOptions(**options))
    except ValueError as error:
        return f"none: {error}; give this folder another name"
    if facts != latent_facts(**size):
        return f"none: {index.name} has {facts.length:,} images; give this folder another name"
    if captions is None:
        return _section({"name": index.name, **options})
    asked = {"text_encoder": captions.text_encoder.name, "caption_tokens": captions.tokens}
    return _section({"name": index.name, **options, **asked, "caption_features": captions.features})


def _section(data: dict[str, Any]) -> str:
    """The line of a recipe, quoted where YAML would read something else."""
    import yaml

    return f"data: {yaml.safe_dump(data, default_flow_style=True, sort_keys=False, width=math.inf).strip()}"


def _default_out(data: Path, classes: tuple[str, ...], image_size: int) -> Path:
    from bench.data.latent_index import data_root

    is_imagenet = len(classes) == 1000 and all(WORDNET_ID.fullmatch(name) for name in classes)
    name = "imagenet" if is_imagenet else re.sub(r"[^A-Za-z0-9._-]+", "-", data.resolve().name).strip("-._")
    return data_root() / f"{name or 'images'}-{image_size}-latents"


def _parse_part(text: str) -> Part:
    from bench.data.encode import Part

    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--part {text}: accepted: I/N with I from 1 to N, such as 1/4")
    return Part(int(match[1]) - 1, int(match[2]))


def _part_of_environment() -> Part:
    """The part of this task of a SLURM array and, within it, of this rank of torchrun's or srun's."""
    from bench.data.encode import Part

    task, tasks = 0, 1
    if all(name in os.environ for name in ARRAY):
        number, first, tasks = (_integer(name) for name in ARRAY)
        task = number - first
    rank, world = next(
        ((_integer(mine), _integer(all_)) for mine, all_ in RANKS if mine in os.environ and all_ in os.environ), (0, 1)
    )
    if not (0 <= task < tasks and 0 <= rank < world):
        raise InputError(
            f"environment: task {task} of {tasks} and rank {rank} of {world} make no part; accepted: an array that "
            f"counts by ones, or --part I/N"
        )
    return Part(task * world + rank, tasks * world)


def _local_rank() -> int:
    return next((_integer(name) for name in LOCAL_RANKS if name in os.environ), 0)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _integer(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError:
        raise InputError(f"environment: {name}: {os.environ[name]!r}; accepted: an integer") from None


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with images, or captions, per second on a terminal; nothing elsewhere."""
    import time

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from bench.commands.terminal import console

    shown = console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    with Progress(*columns, console=shown, disable=not shown.is_terminal) as bar:
        task = bar.add_task("encoding", total=None, speed="")
        started = time.perf_counter()

        def on_images(done: int, total: int) -> None:
            speed = f"{done / (time.perf_counter() - started):.4g} {what}/s"
            bar.update(task, completed=done, total=total, speed=speed)

        yield on_images
