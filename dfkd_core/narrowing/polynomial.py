"""`Polynomial`: a number that depends on the sizes of a plan's axes, as the sum of products of such sizes."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Polynomial:
    """Products of sizes, each a sorted tuple of their numbers, with their coefficients. Sums and products are exact."""

    terms: Mapping[tuple[int, ...], int] = field(default_factory=dict)

    def __add__(self, other: "Polynomial | int") -> "Polynomial":
        terms = dict(self.terms)
        for sizes, factor in polynomial(other).terms.items():
            terms[sizes] = terms.get(sizes, 0) + factor
        return Polynomial(terms)

    def __mul__(self, other: "Polynomial | int") -> "Polynomial":
        terms: dict[tuple[int, ...], int] = {}
        for own, factor in self.terms.items():
            for more, by in polynomial(other).terms.items():
                sizes = tuple(sorted((*own, *more)))
                terms[sizes] = terms.get(sizes, 0) + factor * by
        return Polynomial(terms)

    __radd__ = __add__
    __rmul__ = __mul__


def polynomial(value: Polynomial | int) -> Polynomial:
    """Return a whole number as a polynomial."""
    return value if isinstance(value, Polynomial) else Polynomial({(): value} if value else {})
