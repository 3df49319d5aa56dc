"""What a recipe needs on this machine, made sure of before anything is spent. Importing it imports no torch."""

from __future__ import annotations

from pathlib import Path

from bench.data import data_part
from bench.recipe import Recipe
from bench.score.extractors import EXTRACTORS


def check_ready(recipe: Recipe, offline: bool) -> None:
    """Refuse a recipe that lacks its data, autoencoder, feature network or reference here.

    Unless `offline`, files of others that are missing are fetched.

    Raises:
        InputError: data that are not there or not those of the recipe.
        MissingAsset: a file of others that is not in the cache, with the command that gets it.
    """
    from models.files.assets import locate

    data_part(recipe.data.name).check_ready(recipe.data.name, recipe.data.options)
    if ":" in recipe.data.name and not recipe.data.facts.latents:  # a part of the user's own may bring any reference
        from bench.score.evaluate import reference_of

        reference_of(recipe, offline)
    needed: dict[str | None, None] = {}
    for evaluation in recipe.evaluations:
        # A reference may be a file or folder of one's own.
        reference = None if Path(str(evaluation.reference)).exists() else evaluation.reference
        needed |= dict.fromkeys((evaluation.decoder, reference, EXTRACTORS.find(evaluation.extractor).asset))
    for name in needed:
        if name is not None:
            locate(name, offline)
