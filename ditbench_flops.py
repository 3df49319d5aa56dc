"""`ditbench flops`: what a model, a run or a network of one's own costs.

Beside ditbench.py, because it asks all packages: sweeps and plans, the paper's tables, pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bench.errors import InputError
from models.registry import FAMILIES, list_models, listed_name

if TYPE_CHECKING:
    from analysis.printed_gmacs import Printed
    from bench.commands.variants import Given, Variant
    from bench.counting.conventions import Convention
    from bench.recipe import Recipe

SECOND_HAND = "*"  # behind what is printed
EXCEPTION = "truncated: DiT-B/4 counts 5.566 and the paper prints 5.56, where it rounds its other rows."
PICTURES = (".png", ".pdf")


def flops(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="Models (DiT-XL/2), a family (DiT) with its sizes, recipes, sweeps (a file, or a shipped one's name), "
            "run folders, or module:name of your own family or network; default: the 12 models."
        ),
    ] = None,
    all_models: Annotated[
        bool,
        typer.Option("--all", help="The 12 models, the block designs at XL/2, XL/2 at 512 px, and all other families."),
    ] = False,
    input_shape: Annotated[
        str | None, typer.Option(help="Of x, for a network of your own that is in no family: 4,32,32.")
    ] = None,
    by_module: Annotated[bool, typer.Option("--by-module", help="Where the multiply-accumulates are spent.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="With --by-module: the shares as a picture, PNG and PDF, and as csv, such as shares.png."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=10**15, help="With --steps: training compute; of a run, its own.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=10**15, help="With --batch-size: training compute; of a run, its own.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="GPU-hours of the training, by this profile: a shipped one's name, or a path.")
    ] = None,
    mfu: Annotated[
        float | None, typer.Option(help="With --cluster: share of the peak, 0 to 1; default: the profile's.")
    ] = None,
    convention: Annotated[
        Literal["paper", "linear-only", "fvcore", "matmul", "true-flops"],
        typer.Option(help="What is counted (docs/gflops.md)."),
    ] = "paper",
    explain: Annotated[
        str | None, typer.Option(help="A number printed of one model, such as 28.8: which way of counting gives it.")
    ] = None,
    format: Annotated[Literal["table", "csv", "json"], typer.Option(help="How to print.")] = "table",
) -> None:
    from bench.commands import flops as tables
    from bench.commands.variants import read_words
    from bench.counting.conventions import CONVENTIONS

    names, given = read_words(what or [])
    counted_as = CONVENTIONS[convention]
    others = {
        "--all": all_models, "--by-module": by_module, "--batch-size": batch_size, "--steps": steps,
        "--cluster": cluster, "--convention": convention != "paper",
    }  # fmt: skip
    if explain is not None and any(others.values()):
        raise InputError(f"--explain tries every convention on one model; leave out {_first(others)}")
    if all_models and (names or given):
        raise InputError("--all counts a fixed list; give either names and options, or --all")
    if out is not None and (not by_module or out.suffix not in PICTURES):
        raise InputError(f"--out {out}: the picture of --by-module, a file that ends in .png or .pdf; both are written")
    if mfu is not None and cluster is None:
        raise InputError("--mfu: how much of a cluster's peak is used; give --cluster too")
    if by_module and cluster is not None:
        raise InputError("--by-module: where one forward pass is spent, which no cluster changes; leave out --cluster")
    of_training = {"--batch-size": batch_size, "--steps": steps, "--cluster": cluster, "--out": out}
    if convention != "paper" and any(of_training.values()):
        raise InputError(
            f"--convention {convention}: training compute and pictures are by the paper's convention; leave out "
            f"{_first(of_training)}"
        )
    if explain is not None:
        from bench.commands.explain import Printed, print_explained

        number = Printed(explain)  # refused before anything is counted
        print_explained(_variants(names, given, input_shape, None, None), number, format)
        return
    variants = _published() if all_models else _variants(names, given, input_shape, batch_size, steps)
    if by_module:
        files: list[Path] = []
        if out is not None:
            from analysis.shares import draw_shares

            shares = tables.part_rows(variants)
            if not shares:
                raise InputError(f"--out {out}: nothing to draw: no multiply-accumulates were counted")
            files = draw_shares(shares, out.parent, out.stem)
        tables.print_modules(tables.module_rows(variants, counted_as), format, counted_as)
        for path in files:
            typer.echo(path, err=True)
        return
    notes: list[str] = []
    rows = [_row(variant, variants, counted_as) for variant in variants]
    if cluster is not None:
        hours, notes = _gpu_hours(variants, cluster, mfu)
        rows = [{**row, **columns} for row, columns in zip(rows, hours, strict=True)]
    if format == "table":
        _print_table(rows, variants, notes, counted_as)
    else:
        tables.print_data(rows, format)


# The options that are none of the signature's.
_FIELDS = {FAMILIES.find(name).name: fields(FAMILIES.find(name).options) for name in FAMILIES.builtin}
flops.__doc__ = "\n\n".join(
    [
        "Count parameters and GMACs (the paper's \"Gflops\") of one image, beside the paper's printed figures.",
        "Every field of a model's family is an option too, and so is every argument of your own network: "
        "ditbench flops DiT-B/4 --depth 10. "
        + " ".join(
            f"Of {family}: {', '.join('--' + field.name.replace('_', '-') for field in those)}."
            for family, those in _FIELDS.items()
        ),
    ]
)


def _first(options: Mapping[str, Any]) -> str:
    """The first that is given."""
    return next(option for option, value in options.items() if value)


def _published() -> list[Variant]:
    """The 12 models, the other block designs at XL/2, XL/2 at 512 px, and the presets of all other families."""
    from bench.commands.variants import of_model
    from models.designs import DESIGNS

    papers = _papers_models()
    rows: list[tuple[str, Given]] = [(name, {}) for name in papers]
    rows += [("DiT-XL/2", {"block": block}) for block in DESIGNS.builtin if block != DESIGNS.default]
    rows += [("DiT-XL/2", {"image_size": "512"})]
    rows += [(name, {}) for name in list_models() if name not in papers]
    return [of_model(name, given) for name, given in rows]


def _papers_models() -> list[str]:
    """The 12 of the DiT paper."""
    return list(FAMILIES.find(FAMILIES.default).presets)


def _variants(
    names: list[str], given: Given, input_shape: str | None, batch_size: int | None, steps: int | None
) -> list[Variant]:
    """A row or more for each name, in their order."""
    from bench.commands.own_network import read_shape
    from bench.commands.variants import of_recipe, together

    shape = None if input_shape is None else read_shape(input_shape)
    found: list[Variant] = []
    for name in names or _papers_models():
        recipes = recipes_of(name)
        if recipes is None:
            found.append(_trained(_one(name, shape, given), batch_size, steps))
        else:
            found += together([_trained(of_recipe(recipe, given), batch_size, steps) for recipe in recipes])
    if shape is not None and all(variant.called is None for variant in found):
        raise InputError("--input-shape: of x, for a network of your own (module:name); a model's family has its own")
    return found


def _one(name: str, shape: tuple[int, ...] | None, given: Given) -> Variant:
    """A model, or a network of one's own."""
    from bench.commands.own_network import is_network, of_network
    from bench.commands.terminal import accepted
    from bench.commands.variants import of_model

    if ":" not in name and not _is_listed(name):
        raise InputError(
            f"unknown model {name!r}; {accepted(name, [*list_models(), *FAMILIES.builtin])}, a recipe's or "
            "sweep's file, a shipped sweep (`ditbench sweep list`), a run folder, or the path of your own family or "
            "network, such as my_module:Name"
        )
    if ":" not in name or not is_network(name):
        return of_model(name, given)
    if shape is None:
        raise InputError(f"{name}: give --input-shape, that of x, such as 4,32,32")
    return of_network(name, shape, given)


def recipes_of(name: str) -> list[Recipe] | None:
    """Those of a run folder, a folder of runs, a recipe's or sweep's file, or a shipped sweep; None: it is none."""
    from bench.files.run_folder import read_config
    from bench.recipe import Recipe, load_recipe
    from bench.schema import load_yaml
    from sweeps.expand import KEYS, load_sweep

    # Of a family and a study that differ in case, as UNet and unet, the one that is spelled so.
    if _is_listed(name) and (name == listed_name(name) or not _is_shipped(name)):
        return None
    path, is_file = Path(name), name.endswith((".yaml", ".yml"))
    if path.is_dir():
        runs = [path] if (path / "config.yaml").exists() else sorted(run.parent for run in path.glob("*/config.yaml"))
        if runs:
            return [read_config(run) for run in runs]
    elif path.is_file():
        if path.suffix == ".py":
            raise InputError(f"{name}: what is in a Python file goes by its name there, such as {path.stem}:Name")
        content = load_yaml(path)
        if isinstance(content, dict) and "recipe" in content:
            return [read_config(path.parent)]
        is_sweep = isinstance(content, dict) and set(content) & (set(KEYS) - set(Recipe.model_fields))
        return load_sweep(path).recipes if is_sweep else [load_recipe(path)]
    if ":" in name:
        return None
    if is_file or _is_shipped(name):
        return load_sweep(name).recipes
    if path.is_dir():
        raise InputError(f"{name}: no run folder, and no folder of runs: there is no config.yaml in it")
    return None


def _is_shipped(name: str) -> bool:
    """Whether it is a shipped sweep."""
    from sweeps.expand import find_study

    try:
        find_study(name)
    except InputError:
        return False
    return True


def _is_listed(name: str) -> bool:
    try:
        return ":" not in name and bool(listed_name(name))
    except ValueError:
        return False


def _trained(variant: Variant, batch_size: int | None, steps: int | None) -> Variant:
    """With the training that the options say instead of its own."""
    trained = replace(variant, batch_size=batch_size or variant.batch_size, steps=steps or variant.steps)
    if (trained.batch_size is None) != (trained.steps is None):
        raise InputError("--batch-size and --steps go together: training compute needs both")
    return trained


def _row(variant: Variant, variants: list[Variant], convention: Convention) -> dict[str, Any]:
    """`variants`: all rows, which have the same columns."""
    from analysis.printed_gmacs import agreement, printed_gmacs
    from bench.commands.flops import rounded
    from bench.flops import training_gmacs

    of_paper = variant.name, variant.block, variant.image_size or 0
    printed = printed_gmacs(*of_paper) if variant.is_listed else None
    row: dict[str, Any] = {}
    if any(other.label for other in variants):
        row |= {"label": variant.label, "runs": variant.runs}
    count = variant.count(convention) / 1e9
    row |= {
        "model": variant.name,
        "block": variant.block,
        "image_size": variant.image_size,
        "tokens": variant.tokens,
        "parameters": variant.cost.parameters,
        "gflops" if convention.in_flops else "gmacs": rounded(count),
    }
    if convention.name != "paper":  # what is printed beside it, and training compute, are by the paper's
        return row
    row |= {"paper": printed, "agrees": agreement(count, variant.name, printed)}
    if any(map(_printed_of, variants)):
        row |= _beside_printed(variant)
    if any(other.batch_size for other in variants):
        row |= {"training_gmacs": None, "training_flops": None}
    if variant.batch_size is not None and variant.steps is not None:
        training = training_gmacs(variant.gmacs, variant.batch_size, variant.steps)
        row |= {"training_gmacs": training, "training_flops": 2e9 * training}
    return row


def _printed_of(variant: Variant) -> Printed | None:
    """What is printed of a system that is not of the DiT paper's Table 4."""
    from analysis.printed_gmacs import printed_system

    return printed_system(variant.name, variant.image_size or 0) if variant.is_listed else None


def _beside_printed(variant: Variant) -> dict[str, Any]:
    """The columns that compare a system with what is printed of it, empty of others."""
    from analysis.printed_gmacs import agreement
    from bench.flops import cost_of
    from models.registry import configure

    printed = _printed_of(variant)
    row: dict[str, Any] = {"paper_parameters": None, "difference_percent": None, "reason": None, "checked": None}
    if printed is None:
        return row
    row |= {"paper_parameters": printed.parameters, "checked": printed.checked}
    if printed.gmacs is None:
        return row | {"reason": printed.convention}
    also = cost_of(printed.includes, configure(printed.includes)).macs / 1e9 if printed.includes else 0.0
    gmacs, figure = variant.gmacs + also, float(printed.gmacs)
    agrees = agreement(gmacs, variant.name, printed.gmacs)
    reasons = [f"with {printed.includes}" if printed.includes else None, printed.convention if agrees == "no" else None]
    return row | {
        "paper": printed.gmacs,
        "agrees": agrees,
        "difference_percent": round(100 * (gmacs - figure) / figure, 2),
        "reason": "; ".join(filter(None, reasons)) or None,
    }


def _gpu_hours(variants: list[Variant], cluster: str, mfu: float | None) -> tuple[list[dict[str, Any]], list[str]]:
    """The columns that say how long training takes, and what they rest on."""
    from sweeps.cluster import load_cluster
    from sweeps.planning.training_hours import training_hours

    if any(variant.batch_size is None for variant in variants):
        raise InputError("--cluster: GPU-hours need --batch-size and --steps, where no recipe says them")
    profile = load_cluster(cluster)
    name = Path(cluster).name.removesuffix(".yaml").removesuffix(".yml")
    hours = training_hours(variants, profile, name, mfu)
    columns = [
        {"gpu_hours": of_one.gpu_hours, "cluster": name, "precision": profile.precision,
         "peak_tflops": of_one.speed.peak_tflops, "mfu": of_one.speed.mfu, "mfu_source": of_one.speed.source}
        for of_one in hours
    ]  # fmt: skip
    device = "GPU" if profile.device == "cuda" else "rank"
    speeds = dict.fromkeys((of_one.speed.mfu, of_one.speed.peak_tflops, of_one.speed.source) for of_one in hours)
    notes = []
    for share, peak, source in speeds:
        speed = f"at {100 * share:.3g} % of the peak of {peak:g} TFLOP/s ({source})" if share and peak else source
        notes.append(
            f"{device}-hours: as `ditbench sweep plan` has them, of one run's whole training on {name} at "
            f"{profile.precision}, {speed}."
        )
    runs = sum(variant.runs for variant in variants)
    if runs > 1:
        total = sum(variant.runs * of_one.gpu_hours for variant, of_one in zip(variants, hours, strict=True))
        notes.append(f"All {runs} runs: {total:,.{0 if total >= 100 else 3}f} {device}-hours.")
    return columns, notes


def _marked(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose printed numbers say that they are second hand, if they are."""
    if row.get("checked") != "second hand":
        return row
    return row | {key: f"{row[key]}{SECOND_HAND}" for key in ("paper_parameters", "paper") if row[key]}


def _print_table(rows: list[dict[str, Any]], variants: list[Variant], notes: list[str], convention: Convention) -> None:
    """The rows without the columns that say nothing of any of them, and what they mean."""
    from bench.commands import flops as tables

    idle = {column for column in rows[0] if all(row[column] in (None, "") for row in rows)}
    idle |= {"agrees"} if "paper" in idle else set()
    idle |= {"cluster", "precision", "peak_tflops", "mfu", "mfu_source", "checked"}  # the notes say them
    marked = [_marked(row) for row in rows]
    tables.print_columns([{key: value for key, value in row.items() if key not in idle} for row in marked])
    print(f"\n{tables.meaning(convention)}")
    if any(row.get("agrees") == "truncated" for row in rows):
        print(EXCEPTION)
    if "reason" in rows[0]:
        print(
            "Of other families, paper is what is printed of them: results/published/systems_gmacs.csv has the sources."
        )
    if marked != rows:
        print(f"{SECOND_HAND} second hand: not read in the source itself.")
    for variant in variants:
        if variant.called:
            print(f"{variant.name} was counted as {variant.called}.")
    for note in notes:
        print(note)
