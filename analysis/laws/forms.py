"""The forms of scaling law that can be fitted: score = E + a sum of power terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.errors import ResultsError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Form:
    """y = E + sum over terms of coefficient x product over the term's variables of variable^-exponent.

    Attributes:
        name: as `ditbench fit --form` takes it.
        formula: as text.
        floor: whether there is an irreducible E >= 0; without it, the law falls to zero.
        coefficients: one name per term; every coefficient is >= 0.
        terms: the variables of each term.
        exponents: a name for each variable of each term, in order; every exponent is > 0.
    """

    name: str
    formula: str
    floor: bool
    coefficients: tuple[str, ...]
    terms: tuple[tuple[str, ...], ...]
    exponents: tuple[str, ...]

    @property
    def variables(self) -> tuple[str, ...]:
        """The variable of each exponent."""
        return tuple(name for term in self.terms for name in term)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of what is fitted: E if there is one, coefficients, exponents."""
        return (*(("E",) if self.floor else ()), *self.coefficients, *self.exponents)

    @cached_property  # a fit asks for it thousands of times
    def exponent_ranges(self) -> tuple[slice, ...]:
        """Of each term, where its exponents are among all."""
        ends = np.cumsum([0, *map(len, self.terms)]).tolist()
        return tuple(slice(start, end) for start, end in pairwise(ends))

    def least_values(self, variable: str) -> int:
        """How many different values of `variable` the form needs, for its exponent to mean anything.

        A term of its own beside others, E among them, has two parameters and an offset: three values.
        """
        alone = any(term == (variable,) for term in self.terms)
        return 3 if alone and len(self.terms) + self.floor > 1 else 2

    def logs(self, variables: Mapping[str, ArrayLike]) -> Array:
        """Natural logs of the variables, a column an exponent.

        Raises:
            ResultsError: a variable is missing.
        """
        missing = [name for name in self.variables if name not in variables]
        if missing:
            raise ResultsError(
                f"{self.formula}: no value of {missing[0]}; needed: {', '.join(dict.fromkeys(self.variables))}"
            )
        columns = np.broadcast_arrays(*(np.asarray(variables[name], dtype=float) for name in self.variables))
        return np.log(np.stack([np.atleast_1d(column) for column in columns], axis=-1))

    def __call__(self, parameters: ArrayLike, variables: Mapping[str, ArrayLike]) -> Array:
        """The law's score: `parameters` (..., P) in the order of `parameters`, n values a variable -> (..., n)."""
        values = np.asarray(parameters, dtype=float)[..., None, :]
        logs = self.logs(variables)
        score = values[..., 0] if self.floor else np.zeros(1)
        first = int(self.floor)
        exponents = values[..., first + len(self.terms) :]
        for index, where in enumerate(self.exponent_ranges):
            power = np.exp(-np.sum(exponents[..., where] * logs[:, where], axis=-1))
            score = score + values[..., first + index] * power
        return score


FORMS = {
    form.name: form
    for form in (
        Form("power", "y = A C^-alpha", False, ("A",), (("compute",),), ("alpha",)),
        Form("power-floor", "y = E + A C^-alpha", True, ("A",), (("compute",),), ("alpha",)),
        Form("tokens", "y = A C^-alpha T^-gamma", False, ("A",), (("compute", "tokens"),), ("alpha", "gamma")),
        Form("tokens-floor", "y = E + A C^-alpha T^-gamma", True, ("A",), (("compute", "tokens"),), ("alpha", "gamma")),
        Form(
            "chinchilla",
            "y = E + A N^-alpha + B D^-beta",
            True,
            ("A", "B"),
            (("params",), ("images",)),
            ("alpha", "beta"),
        ),
        Form("steps", "y = A D^-beta", False, ("A",), (("images",),), ("beta",)),
        Form(
            "product",
            "y = A C^-alpha T^-gamma D^-beta",
            False,
            ("A",),
            (("compute", "tokens", "images"),),
            ("alpha", "gamma", "beta"),
        ),
        Form(
            "sum",
            "y = E + A C^-alpha T^-gamma + B D^-beta",
            True,
            ("A", "B"),
            (("compute", "tokens"), ("images",)),
            ("alpha", "gamma", "beta"),
        ),
    )
}
"""Form name -> form. Variables: compute C, tokens T an image, params N, images D seen in training.

chinchilla is approach 3 of Hoffmann et al. 2022 (arXiv:2203.15556, eq. 2); it has no term for tokens, so it holds for
one patch size. tokens is for models of several patch sizes: at equal compute, finer patches score better. steps is one
model's learning curve. product and sum are laws of models and training for several patch sizes: by a product, larger
models, or longer training, are always the better use of compute; by a sum, as by chinchilla, a budget has a best size.
"""
