"""A function like those of tenants, for the zygote to rehearse with."""

from dataclasses import dataclass
from typing import Annotated

from cloister.function import boolean, function, sealed


@dataclass
class Given:
    """Its input."""

    text: str
    number: int = 0


@function("rehearsed", output=boolean())
def rehearsed(given: Annotated[Given, sealed("keys")]) -> bool:
    """Whether the number is positive."""
    return given.number > 0
