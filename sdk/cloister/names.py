"""The shape of the names of keys, functions, aliases, tenants and principals.

A module of its own, so that a cold start that checks a name does not load what functions are written with.
"""

from __future__ import annotations

import re
from typing import Final

from cloister.errors import ConfigurationError

__all__ = ["check_name"]

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")


def check_name(value: object, what: str) -> str:
    """Return `value` if it is a resource name, else raise what a good name looks like."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ConfigurationError(
            f"the name of the {what} cannot be used",
            hint="use 1 to 63 of a-z, 0-9 and '-', starting with a letter, for example 'credit-histories'",
        )
    return value
