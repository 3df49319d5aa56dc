"""Score samples that are a file: the suite's own arrays, ADM's .npz, a folder of images, made by anyone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.images import Images, open_images
from bench.data.pixels import layout
from bench.errors import InputError
from bench.files import jsonl
from bench.files.atomic import write_json
from bench.files.names import shown
from bench.files.run_folder import read_config
from bench.parallel import Ranks
from bench.provenance import commit, read_made_from
from bench.score.extractors import check_kind, load_extractor
from bench.score.fidelity import Scorer
from bench.score.reference import Reference
from bench.stopping import StopRequest

log = logging.getLogger(__name__)


class First(Images):
    """The first `count` of `images`."""

    def __init__(self, images: Images, count: int) -> None:
        self._images = images
        self.shape = (count, *images.shape[1:])

    def pixels(self, start: int, stop: int) -> NDArray[np.uint8]:
        return self._images.pixels(start, min(stop, len(self)))


def evaluate_samples(
    samples: Path,
    real: Reference,
    extractor: str,
    num_samples: int | None,
    kid_subset_size: int,
    work: Path,
    device: torch.device,
    ranks: Ranks,
    stop: StopRequest,
    offline: bool,
    metrics: tuple[str, ...] | None = None,
    say: Callable[[str], object] = log.warning,
) -> dict[str, Any]:
    """Score samples against a reference. All ranks must call it.

    Args:
        samples: .npy (N, C, H, W), .npz (N, H, W, C) or a folder of images; of clips, with T before H.
        real: what they are compared with.
        num_samples: the first so many; None: all.
        work: features of this evaluation go to folders in it, so that an interrupted one continues.
        metrics: as `Scorer`.
        say: is told, by the first rank, of a metric that is left empty, and of what lies beside samples and is ignored.

    Returns:
        The row: what is known of how the samples were made, samples_id (a hash of the pixels), num_samples, reference,
        extractor, kid_subset_size, and the metrics of `bench.score.fidelity.Scorer.score`. It is also written to
        `work`, as <samples_id>-<extractor>-<reference>.json. Ranks but the first return {}.

    Raises:
        InputError: unreadable samples, fewer than asked for or than a score needs, of another size than the
            reference's images, or images for an extractor of clips, or the other way round.
        MissingAsset: a file of others is not in the cache and cannot be fetched.
        Stopped: on request; finished chunks of features are kept.
    """
    images = open_images(samples)
    count = num_samples or images.shape[0]
    if count > images.shape[0]:
        raise InputError(f"{samples}: has {images.shape[0]} samples, fewer than the {count} asked for (--num-samples)")
    if count < 2:
        raise InputError(f"{samples}: has one sample; a distance between distributions needs more")
    if real.images is not None and real.images.shape[1:] != images.shape[1:]:
        its = real.images.shape[1:]
        raise InputError(
            f"{samples}: images are {tuple(images.shape[1:])}, those of the reference {real.name} are "
            f"{tuple(its)} {layout(its)}; samples are scored at the reference's resolution"
        )
    if real.images is not None and kid_subset_size > count:
        raise InputError(
            f"{samples}: {count} samples, fewer than a subset of KID has ({kid_subset_size}); accepted: "
            f"--kid-subset-size of at most {count}"
        )
    chosen = First(images, count)
    check_kind(extractor, images.shape[1:], str(samples))
    network = load_extractor(extractor, work, offline)
    scorer = Scorer(real, network, kid_subset_size, work, device, ranks, stop, metrics)
    content_hash = ranks.from_first(images.content_hash() if ranks.is_first else "")
    samples_id = content_hash[:10]
    name = f"{samples_id}-{count}-{scorer.key['extractor']}"
    if ranks.is_first:
        for metric, needed in scorer.left_out.items():
            say(f"{metric} is left empty: it needs {needed}")
    try:
        scores = scorer.score(chosen, work / name, stop)
    except ValueError as error:
        raise InputError(f"{samples}: {count} samples cannot be scored ({error})") from None
    if not ranks.is_first:
        return {}
    made_from = read_made_from(samples, content_hash, say)
    for key in ("commit", "normalization", "captions"):  # no part of a score's key: the others are the run's recipe's
        made_from.pop(key, None)
    row = {
        **made_from,
        "samples": shown(str(samples)),
        "samples_id": samples_id,
        "num_samples": count,
        **scorer.key,
        **scores,
    }
    write_json(work / f"{name}-{scorer.key['reference']}.json", {**row, "time": jsonl.now(), "commit": commit()})
    return row


def add_to_run(row: dict[str, Any], folder: Path) -> None:
    """Add a row to other-evals.jsonl of the run whose weights made the samples, once.

    Raises:
        InputError: the samples are not known to be of this run.
    """
    recipe = read_config(folder)
    if row.get("run") != recipe.id or "step" not in row:
        made_by = f"run {row['run']}" if "run" in row else "unknown weights"
        raise InputError(f"--run {folder}: is run {recipe.id}, the samples are of {made_by}")
    path = folder / "other-evals.jsonl"
    if row not in jsonl.read(path):
        jsonl.append(path, row)
