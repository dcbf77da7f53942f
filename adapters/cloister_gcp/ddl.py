"""The SQL that declares a remote function.

Source: https://cloud.google.com/bigquery/docs/reference/standard-sql/data-definition-language#create_function_statement
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from cloister.errors import ConfigurationError

__all__ = ["create_function", "parts_of"]

_PART: Final = re.compile(r"[A-Za-z0-9_-]{1,256}")
_URL: Final = re.compile(r"[A-Za-z0-9._~:/?&=%+-]{1,2048}")
_WORD: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_NAME_AND_QUALIFIER: Final = 2
_WITH_PROJECT: Final = 3


def create_function(
    function: str,
    *,
    args: Mapping[str, str],
    returns: str,
    connection: str,
    endpoint: str,
    max_batching_rows: int,
    context: Mapping[str, str],
) -> str:
    """Write `CREATE OR REPLACE FUNCTION ... REMOTE WITH CONNECTION`.

    Args:
        function: `dataset.name` or `project.dataset.name`.
        args: SQL types by name, in order.
        returns: SQL type of the result.
        connection: `location.connection` or `project.location.connection`.
        endpoint: https.
        max_batching_rows: Rows a request, at most.
        context: The `user_defined_context`; names and values are identifiers.

    Raises:
        ConfigurationError: A name or the endpoint cannot be used.
    """
    parts_of(function, "function", "dataset.name")
    parts_of(connection, "connection", "location.connection")
    if not _is_endpoint(endpoint):
        raise ConfigurationError("the endpoint cannot be used", hint="give its https URL")
    if type(max_batching_rows) is not int or max_batching_rows < 1:
        raise ConfigurationError("max_batching_rows is a positive whole number")
    if not all(map(_WORD.fullmatch, [*context, *context.values()])):
        raise ConfigurationError("user_defined_context cannot be used", hint="use a-z, 0-9 and '_'")
    columns = ", ".join(f"{name} {kind}" for name, kind in args.items())
    pairs = ", ".join(f"('{name}', '{value}')" for name, value in context.items())
    return (
        f"CREATE OR REPLACE FUNCTION `{function}`({columns}) RETURNS {returns}\n"
        f"REMOTE WITH CONNECTION `{connection}`\n"
        f"OPTIONS (\n"
        f"  endpoint = '{endpoint}',\n"
        f"  max_batching_rows = {max_batching_rows},\n"
        f"  user_defined_context = [{pairs}]\n"
        f");"
    )


def parts_of(path: str, what: str, form: str) -> list[str]:
    """The parts of a dotted name, with or without a project.

    Raises:
        ConfigurationError: It cannot be used.
    """
    parts = path.split(".")
    if len(parts) not in {_NAME_AND_QUALIFIER, _WITH_PROJECT} or not all(map(_PART.fullmatch, parts)):
        raise ConfigurationError(
            f"the name of the {what} cannot be used", hint=f"write {form} or project.{form}"
        )
    return parts


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
