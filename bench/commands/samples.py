"""`ditbench sample` and `ditbench evaluate`: samples of any weights, and scores of anyone's samples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.commands.options import DeviceOption, OfflineOption, PrecisionOption
from bench.errors import InputError
from bench.objectives import OBJECTIVES
from bench.samplers import SAMPLERS, Labels
from bench.score.extractors import EXTRACTORS
from bench.stopping import StopRequest

if TYPE_CHECKING:
    from torch import nn

    from bench.data.captions import CaptionBank
    from bench.recipe.evaluation import EvaluationConfig
    from bench.weights import Weights


def sample(
    weights: Annotated[
        str,
        typer.Argument(help="A run's folder, DiT-XL/2-256, DiT-XL/2-512, a checkpoint file, or a diffusers folder."),
    ],
    out: Annotated[Path, typer.Option(help="The array, such as samples.npy: uint8 (N, C, H, W).")],
    step: Annotated[int | None, typer.Option(min=1, help="Of a run: which kept step; default: the last.")] = None,
    ema: Annotated[
        str | None,
        typer.Option(
            help="Of a run: which weights, raw, decay=0.999 or std=0.1; default: the average of its train.ema_decay."
        ),
    ] = None,
    num_samples: Annotated[int, typer.Option(min=2, help="How many.")] = 50_000,
    sampler: Annotated[
        str, typer.Option(help=f"{', '.join(SAMPLERS.builtin)}, or the path of your own, module:Name.")
    ] = SAMPLERS.default,
    sampler_option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Of the sampler, such as eta=0.5.")
    ] = None,
    sampling_steps: Annotated[int, typer.Option(min=2, max=100_000, help="Steps of the sampler.")] = 250,
    objective: Annotated[
        str | None,
        typer.Option(
            help=f"Of a file that does not say how it was trained: {', '.join(OBJECTIVES.builtin)}, or the path of "
            f"your own, module:Name; default: {OBJECTIVES.default}."
        ),
    ] = None,
    objective_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Of the objective, such as network_time=data-at-1 for SiT's own weights."
        ),
    ] = None,
    guidance_scale: Annotated[float, typer.Option(min=0, help="1: no guidance.")] = 1.0,
    guidance_channels: Annotated[int, typer.Option(min=1, help="Guided channels; the paper's code guides 3 of 4.")] = 3,
    guidance_interval: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Guide only at these of the process's times; default: always."),
    ] = None,
    guide: Annotated[
        str | None, typer.Option(help="Guide by this network, named as the weights are, not by the null label.")
    ] = None,
    guide_step: Annotated[
        int | None, typer.Option(min=1, help="Guide by this kept step of --guide's run, or of the run itself.")
    ] = None,
    labels: Annotated[
        Labels, typer.Option(help="balanced: sample i has class, or caption, i modulo their number; uniform: random.")
    ] = "balanced",
    captions: Annotated[
        Path | None,
        typer.Option(
            help="Of weights that are told captions: a .npz with embeddings (K, S, D) and mask (K, S); default: those "
            "of a run's data set."
        ),
    ] = None,
    decoder: Annotated[
        str | None, typer.Option(help="Autoencoder, by name or folder; default: a run's own; none for pixels.")
    ] = None,
    clip_denoised: Annotated[bool, typer.Option("--clip-denoised", help="Clip x0 to -1 .. 1; for pixels.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Noise and labels are a function of it and the sample's index.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples at a time.")] = 64,
    decode_batch_size: Annotated[int, typer.Option(min=1, help="Latents that the decoder takes at a time.")] = 16,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
    offline: OfflineOption = False,
) -> None:
    """Sample any weights into one array, beside which a .json says how. The same command continues.

    Under torchrun its processes share the work; the samples are the same whatever their number.
    """
    import signal

    stop = StopRequest().on(signal.SIGUSR2, signal.SIGTERM)
    if out.suffix != ".npy":
        raise InputError(f"--out {out}: accepted: a .npy file; `ditbench export-samples` makes .npz and PNG of it")
    options = _options("--sampler-option", sampler_option or [], "eta=0.5")
    objective_options = _options("--objective-option", objective_option or [], "network_time=data-at-1")
    if objective_options and objective is None:
        raise InputError("--objective-option: of which --objective? It is missing")
    if guidance_scale == 1 and (guidance_interval or guide or guide_step):
        raise InputError("--guidance-scale: 1 is no guidance, which needs no interval and no guide; accepted: another")
    from bench.data.decoders import load_decoder, of_normalized
    from bench.parallel import joined, prepare_device
    from bench.provenance import commit
    from bench.recipe.evaluation import by_flag, parse_evaluation
    from bench.recipe.parts import parse_diffusion
    from bench.sample import Sampling, make_samples
    from bench.samplers.guide import sampling_gmacs
    from bench.weights import load_weights_of

    evaluation = parse_evaluation(  # before gigabytes of weights are fetched for it
        sampler=sampler,
        sampler_options=options,
        sampling_steps=sampling_steps,
        clip_denoised=clip_denoised,
        guidance_scale=guidance_scale,
        guidance_channels=guidance_channels if guidance_scale != 1 else None,
        guidance_interval=guidance_interval,
        guide=guide,
        guide_step=guide_step,
        num_samples=num_samples,
        labels=labels,
        decoder=decoder,
        batch_size=batch_size,
        decode_batch_size=decode_batch_size,
    )
    asked = None if objective is None else parse_diffusion(objective, objective_options)
    with joined(device) as ranks:
        torch_device = prepare_device(device, precision, ranks.local_rank)
        source = load_weights_of(weights, step, offline, ema, asked)
        evaluation = evaluation.model_copy(update={"decoder": decoder or source.decoder})
        from bench.score.evaluate import sampling_key

        channels = source.shape[0]
        try:
            guided_by, load_guide = _checked(evaluation, source, weights, offline, ema)
        except ValueError as error:
            raise InputError(by_flag(str(error))) from None
        decode = load_decoder(evaluation, torch_device, offline)
        if decode.id == "pixels" and channels not in (1, 3):
            raise InputError(f"--decoder: missing; {weights} makes latents of {channels} channels")
        if decode.latent_channels not in (None, channels):
            given = f"--decoder {decode.id}: is for other latents"
            raise InputError(f"{given} ({decode.latent_channels} channels); {weights} makes {channels} channels")
        decode, normalized = of_normalized(decode, source.normalization)
        bank, of_captions = captions_for(source, weights, captions, labels)
        made_from = {
            **source.identity,
            "seed": seed,
            **sampling_key(evaluation, source.diffusion, decode.id),
            **normalized,
            **of_captions,
            "guide": guided_by,
            "sampling_gmacs": sampling_gmacs(evaluation, source.diffusion, source.gmacs),
            "commit": commit(),
        }
        speed = make_samples(
            out,
            Sampling(evaluation, seed, source.diffusion, source.shape, source.num_classes, bank),
            made_from,
            lambda: source.model,
            decode,
            torch_device,
            precision,
            ranks,
            stop,
            load_guide=load_guide,
        )
        if ranks.is_first:
            made = "were there" if speed is None else f"made, {speed:.3g} images/s"
            typer.echo(f"{num_samples} samples {made}: {out}")


def _checked(
    evaluation: EvaluationConfig, source: Weights, weights: str, offline: bool, ema: str | None
) -> tuple[str | None, Callable[[], nn.Module] | None]:
    """What guides, and how it is loaded, where it is not the null label: see `bench.samplers.guide`.

    Raises:
        ValueError: `key: what is wrong`, of `evaluation`: what these weights cannot be sampled with.
    """
    from bench.recipe.evaluation import check_sampling
    from bench.samplers.guide import check_latents, guide_of, load_guide

    check_sampling(evaluation, source.diffusion)
    if evaluation.guidance_scale == 1:
        return None, None
    channels, step, made_by = evaluation.guidance_channels, evaluation.guide_step, source.identity
    if channels is not None and channels > source.shape[0]:
        raise ValueError(f"guidance_channels: {channels} is more than the model's {source.shape[0]}")
    if evaluation.guide is None and step is None:
        if source.label_dropout == 0:
            raise ValueError(
                f"guidance_scale: {evaluation.guidance_scale:g} needs a null label, which {weights} did not learn "
                "(train.label_dropout is 0); accepted: --guide, --guide-step, or 1"
            )
        return None, None
    if evaluation.guide is None and "run" not in made_by:
        raise ValueError(f"guide_step: {weights} is no run, which would have another step; accepted: --guide")
    # A run's folder, or a file of weights in its checkpoints/.
    own = weights if (Path(weights) / "config.yaml").exists() else str(Path(weights).resolve().parents[1])
    by = evaluation if evaluation.guide else evaluation.model_copy(update={"guide": own})
    found = guide_of(by, source.arch, source.diffusion, offline)
    assert found is not None
    check_latents(found, source.normalization)
    run, _, its_step = found.id.rpartition(" step ")
    is_own = bool(run) and run == made_by.get("run")
    if is_own and int(its_step) > made_by["step"]:
        raise ValueError(f"guide_step: {its_step} is later than {made_by['step']}, the step of the weights it guides")
    if not is_own:
        return found.id, lambda: load_guide(by, source.diffusion, offline).model
    # Of the same average, as in a recipe.
    return f"step {its_step}", lambda: load_guide(by, source.diffusion, offline, ema).model


def captions_for(
    source: Weights, weights: str, given: Path | None, labels: Labels
) -> tuple[CaptionBank | None, dict[str, Any]]:
    """Captions for weights that are told them, and what is said of these beside the samples."""
    from bench.data.captions import told
    from bench.data.captions.arrays import ACCEPTED, read_captions
    from models.registry import caption_shape_of

    shape = caption_shape_of(source.arch)
    if shape is None:
        if given is not None:
            raise InputError(f"--captions {given}: {weights} is told labels; leave it out")
        return None, {}
    if given is not None:
        bank = read_captions(given, shape)
        # Others than a score's run has: scores of either must not be taken for the same.
        return bank, {"captions": bank.id, "labels": f"{labels} {bank.id}"}
    bank = None if source.data is None else source.data.caption_bank()
    if bank is None:
        raise InputError(f"--captions: missing; {weights} is told {told(shape)}; accepted: {ACCEPTED}")
    return bank, {"captions": bank.id}


def _options(flag: str, texts: list[str], example: str) -> dict[str, Any]:
    """`KEY=VALUE` as a recipe would hold it."""
    from bench.schema import parse_yaml

    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"{flag} {text}: accepted: KEY=VALUE, such as {example}")
        try:
            options[key] = parse_yaml(value)
        except ValueError as error:
            raise InputError(f"{flag} {text}: {error}") from None
    return options


def evaluate(
    samples: Annotated[Path, typer.Argument(help="A .npy or .npz of uint8 images, or a folder of images.")],
    reference: Annotated[
        str | None,
        typer.Option(
            help="adm-imagenet-256, adm-imagenet-512, digits, statistics of `ditbench reference`, or a .npz, .npy or "
            "folder of real images."
        ),
    ] = None,
    extractor: Annotated[
        str | None,
        typer.Option(help=f"The features that are compared; default: of --run's recipe, else {EXTRACTORS.default}."),
    ] = None,
    num_samples: Annotated[
        int | None, typer.Option(min=2, help="How many of them, from the first on; default: all.")
    ] = None,
    kid_subset_size: Annotated[
        int | None,
        typer.Option(min=2, help="Images of each of KID's 100 subsets; default: of --run's recipe, else 1000."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="The run whose weights made the samples: the row is added to its folder, and the reference, the "
            "features and KID's subsets are its recipe's unless given, and so are the metrics."
        ),
    ] = None,
    work: Annotated[Path, typer.Option(help="Features and the resulting row go here.")] = Path("runs/evaluations"),
    format: Annotated[str, typer.Option(help="table or json.")] = "table",
    device: DeviceOption = "cpu",
    offline: OfflineOption = False,
) -> None:
    """Score samples that anyone made: FID, sFID, Inception Score, precision, recall, KID as ADM's protocol has them.

    Under torchrun its processes share the feature extraction. Interrupted, the same command continues.
    """
    import signal

    stop = StopRequest().on(signal.SIGUSR2, signal.SIGTERM)
    if format not in ("table", "json"):
        raise InputError(f"--format {format}: accepted: table, json")
    if reference is None and run is None:
        raise InputError("--reference: missing; accepted: a reference, or --run RUN for that run's own")
    from bench.files.run_folder import read_config
    from bench.parallel import joined, prepare_device
    from bench.recipe.evaluation import EvaluationConfig
    from bench.score.evaluate import named_reference, reference_of
    from bench.score.evaluate_samples import add_to_run, evaluate_samples
    from bench.score.fidelity import OF_THE_FILE

    recipe = None if run is None else read_config(run)
    own = EvaluationConfig() if recipe is None else recipe.evaluation
    if reference is not None:
        real = named_reference(reference, offline)
    else:
        assert recipe is not None  # one of the two was given
        real = reference_of(recipe, offline)
    with joined(device) as ranks:
        torch_device = prepare_device(device, "fp32", ranks.local_rank)
        row = evaluate_samples(
            samples,
            real,
            extractor or own.extractor,
            num_samples,
            kid_subset_size or own.kid_subset_size,
            work,
            torch_device,
            ranks,
            stop,
            offline,
            own.metrics,
            lambda line: typer.echo(line, err=True),
        )
        if ranks.is_first:
            if run is not None:
                add_to_run(row, run)
            _print(row, format)
            if row["extractor"].startswith("dinov2-") and row["reference_statistics"] != OF_THE_FILE:
                typer.echo(
                    f"The reference's statistics are {row['reference_statistics']}: not comparable with published "
                    "FD-DINOv2, which has the whole training set's; `ditbench reference` makes those.",
                    err=True,
                )


def _print(row: dict[str, Any], format: str) -> None:
    if format == "json":
        typer.echo(json.dumps(row, indent=1))
        return
    from bench.commands.text_table import print_table

    lines = [[key, f"{value:.6g}" if isinstance(value, float) else str(value)] for key, value in row.items()]
    print_table(["", ""], lines, [True, True])
    if row.get("kid") is None:
        typer.echo("The reference has no images: KID, precision and recall need them.")
