"""The SQL that declares a remote function."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from cloister.errors import ConfigurationError
from cloister_gcp.types import SQL_TYPES

__all__ = ["create_function"]

_PART: Final = re.compile(r"[A-Za-z0-9_-]{1,256}")
_URL: Final = re.compile(r"[A-Za-z0-9._~:/?&=%+-]{1,2048}")
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


def create_function(
    function: str,
    *,
    args: Mapping[str, type],
    returns: type,
    connection: str,
    endpoint: str,
    max_batching_rows: int,
) -> str:
    """Write `CREATE OR REPLACE FUNCTION ... REMOTE WITH CONNECTION`.

    Raises:
        ConfigurationError: A name or the endpoint cannot be used.
    """
    name = _quoted(function, "function", "dataset.name")
    link = _quoted(connection, "connection", "location.connection")
    columns = ", ".join(f"{arg} {SQL_TYPES[kind]}" for arg, kind in args.items())
    if not _is_endpoint(endpoint):
        raise ConfigurationError("the endpoint cannot be used", hint="give its https URL")
    if type(max_batching_rows) is not int or max_batching_rows < 1:
        raise ConfigurationError("max_batching_rows is a positive whole number")
    return (
        f"CREATE OR REPLACE FUNCTION {name}({columns}) RETURNS {SQL_TYPES[returns]}\n"
        f"REMOTE WITH CONNECTION {link}\n"
        f"OPTIONS (endpoint = '{endpoint}', max_batching_rows = {max_batching_rows});"
    )


def _quoted(path: str, what: str, form: str) -> str:
    parts = path.split(".")
    if len(parts) not in {2, 3} or not all(map(_PART.fullmatch, parts)):
        raise ConfigurationError(
            f"the name of the {what} cannot be used", hint=f"write {form} or project.{form}"
        )
    return f"`{path}`"


def _is_endpoint(url: str) -> bool:
    if not _URL.fullmatch(url):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    )
