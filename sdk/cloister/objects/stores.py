"""Object stores by URL; each cloud's adapter registers its scheme under `cloister.object_stores`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cloister.errors import ConfigurationError

if TYPE_CHECKING:
    from cloister.objects.uploads import ObjectStore

__all__ = ["SCHEMES", "open_store"]

SCHEMES: Final = {"s3": "cloister[aws]", "gs": "cloister[gcp]", "azblob": "cloister[azure]"}
"""The schemes there are, and what to install for each."""


def open_store(url: str) -> tuple[ObjectStore, str]:
    """Open the store of `s3://bucket/name`, `gs://bucket/name` or `azblob://container/name`.

    Credentials come from where the cloud's own client looks for them.

    Returns:
        The store, and the object's name in it.

    Raises:
        ConfigurationError: The URL is of no such form, or the adapter is not installed.
    """
    parts = urlsplit(url)
    name = parts.path.removeprefix("/")
    if parts.scheme not in SCHEMES or not parts.netloc or not name or parts.query or parts.fragment:
        raise ConfigurationError(
            "this is not the URL of an object",
            hint="s3://bucket/name, gs://bucket/name, azblob://container/name",
        )
    for entry in entry_points(group="cloister.object_stores", name=parts.scheme):
        store: ObjectStore = entry.load()(parts.netloc)
        return store, name
    raise ConfigurationError(
        f"{parts.scheme}:// needs another package", hint=f"pip install '{SCHEMES[parts.scheme]}'"
    )
