"""Buckets of sealed values by URL; a cloud's adapter registers its scheme under `cloister.value_stores`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cloister.errors import ConfigurationError

if TYPE_CHECKING:
    from cloister.transfer.items import ValueStore

__all__ = ["SCHEMES", "open_values"]

SCHEMES: Final = {"s3": "cloister[aws]", "azblob": "cloister[azure]"}
"""The schemes there are, and what to install for each."""


def open_values(url: str) -> tuple[ValueStore, str]:
    """Open the bucket of `s3://bucket/prefix` or `azblob://container/prefix`.

    Credentials come from where the cloud's own client looks for them.

    Returns:
        The bucket, and the prefix.

    Raises:
        ConfigurationError: The URL is of no such form, or the adapter is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError(
            "this is not the URL of a bucket", hint="s3://bucket/prefix/, azblob://container/prefix/"
        )
    for entry in entry_points(group="cloister.value_stores", name=parts.scheme):
        store: ValueStore = entry.load()(parts.netloc)
        return store, parts.path.removeprefix("/")
    raise ConfigurationError(
        f"{parts.scheme}:// needs another package", hint=f"pip install '{SCHEMES[parts.scheme]}'"
    )
