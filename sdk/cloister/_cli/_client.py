"""How commands reach the host and print what it says."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from cloister.client import Client
from cloister.config import Settings
from cloister.envelope import seal_to
from cloister.errors import ConfigurationError
from cloister.function.bundle import BUNDLE_CONTEXT

__all__ = [
    "call",
    "create_with_key",
    "open_texts",
    "read_jwk",
    "seal_bundle",
    "show",
    "tenant_of_settings",
    "write_private",
]


def call(op: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """One operation, with the settings of the environment and `cloister.toml`."""
    with Client.from_env() as client:
        return client.call(op, payload)


def open_texts(sealed: Sequence[str], contexts: Sequence[Mapping[str, str]]) -> list[str]:
    """Open values that hold text."""
    with Client.from_env() as client:
        return [str(value) for value in client.open_many(sealed, contexts=contexts)]


def seal_bundle(data: bytes, key: str) -> str:
    """Seal a bundle to the public half of a key, as the deployment vouches for it."""
    with Client.from_env() as client:
        public = client.public_key(key)
    return seal_to(data, public.jwk, kid=public.kid, context=BUNDLE_CONTEXT)


def tenant_of_settings() -> str:
    """The tenant that the settings name."""
    return Settings.load().tenant


def read_jwk(path: Path) -> dict[str, Any]:
    """Read a key from a file.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        jwk = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        jwk = None
    if not isinstance(jwk, dict):
        raise ConfigurationError(f"{path} holds no key", hint="a JWK, from `cloister signer create`")
    return jwk


def show(result: Mapping[str, Any], member: str | None = None) -> None:
    """Print a result: a list as one JSON document a line, anything else indented."""
    if member is None:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    for item in result[member]:
        typer.echo(json.dumps(item, ensure_ascii=False))


def write_private(path: Path, text: str) -> None:
    """Write a new file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")


def create_with_key(op: str, payload: Mapping[str, Any], out: Path | None) -> None:
    """Run an operation that returns an API key, and put the key into a new file of its own.

    Raises:
        ConfigurationError: The file exists already.
    """
    if out is not None and out.exists():
        raise ConfigurationError(f"{out} exists already", hint="choose another file with --out")
    result = dict(call(op, payload))
    api_key = result.pop("api_key")
    if out is not None and api_key:
        write_private(out, api_key)
        result["api_key_file"] = str(out)
    show(result)
