"""The sealed copies of the root key, as they stand in the store.

Each generation has a copy under the provider that unseals it, perhaps one under another provider while a
deployment moves, and one for the recovery quorum. The rows are authentic by their sealing alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
from sqlalchemy import TextClause, text

from cloister.errors import CloisterError, ConfigurationError
from cloister.jose import b64url_decode, b64url_encode
from cloister.secret import Secret
from cloister_host.keymanager.root import ROOT_BYTES, Environment, RootKey
from cloister_host.store.canonical import canonical
from cloister_host.store.generations import FIRST
from cloister_host.store.statements import Rows
from cloister_host.unseal import Unseal

__all__ = [
    "Copy",
    "Execute",
    "RootParts",
    "add_copy",
    "copies_of",
    "delete_copy",
    "open_copy",
    "open_one",
    "place_of",
    "seal_copy",
]

Execute = Callable[[TextClause, Mapping[str, Any]], Rows]
"""`Session.execute` or `Tx.execute`."""

_ID_BYTES: Final = 8
_INSERT: Final = text(
    "INSERT INTO roots (id, generation, provider, deployment, sealed)"
    " VALUES (:id, :generation, :provider, :deployment, :sealed)"
)
_SELECT: Final = text(
    "SELECT id, generation, provider, deployment, sealed FROM roots ORDER BY generation DESC, id"
)
_DELETE: Final = text("DELETE FROM roots WHERE id = :id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One sealed copy of one generation."""

    id: str
    generation: int
    provider: str
    deployment: str
    sealed: bytes

    @property
    def place(self) -> str:
        """What it is bound to."""
        return place_of(self.deployment, self.generation)


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is sealed: both parts of the root key, and where it was generated."""

    environment: Environment
    generation: int
    key: str
    lasting: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RootParts:
    """An opened copy.

    Attributes:
        key: The part that wraps KEKs, of this generation.
        lasting: The part that stays.
    """

    environment: Environment
    generation: int
    key: Secret
    lasting: Secret

    @classmethod
    def draw(cls, environment: Environment) -> RootParts:
        """Draw the root key of a new deployment."""
        key, lasting = Secret(os.urandom(ROOT_BYTES)), Secret(os.urandom(ROOT_BYTES))
        return cls(environment=environment, generation=FIRST, key=key, lasting=lasting)

    def succeeded(self, generation: int) -> RootParts:
        """Draw a later generation; the part that stays, stays."""
        return replace(self, generation=generation, key=Secret(os.urandom(ROOT_BYTES)))

    def root(self) -> RootKey:
        """The root key, holding this generation."""
        return RootKey(self.lasting, self.environment, {self.generation: self.key})


def place_of(deployment: str, generation: int) -> str:
    """What a copy is bound to; KMS policies may name it."""
    return f"{deployment}/{generation}"


def seal_copy(unseal: Unseal, parts: RootParts, *, check: bool = True) -> Copy:
    """Make a sealed copy.

    Args:
        unseal: Who seals it.
        parts: What is sealed.
        check: See that it opens again before anything hangs on it.

    Raises:
        ConfigurationError: The provider cannot be used, or does not give back what it was given.
        UnavailableError: It cannot answer now.
    """
    document = canonical(
        _Document(
            environment=parts.environment,
            generation=parts.generation,
            key=b64url_encode(parts.key.reveal()),
            lasting=b64url_encode(parts.lasting.reveal()),
        )
    )
    deployment = parts.root().deployment
    place = place_of(deployment, parts.generation)
    sealed = unseal.wrap(document, place)
    if check and unseal.unwrap(sealed, place) != document:
        raise ConfigurationError(f"the provider {unseal.name} does not give back what it was given")
    return Copy(
        id=os.urandom(_ID_BYTES).hex(),
        generation=parts.generation,
        provider=unseal.name,
        deployment=deployment,
        sealed=sealed,
    )


def open_copy(unseal: Unseal, copy: Copy) -> RootParts:
    """Open a copy.

    Raises:
        ConfigurationError: It does not open with this provider, or is none.
        UnavailableError: The provider cannot answer now.
    """
    try:
        opened = msgspec.json.decode(unseal.unwrap(copy.sealed, copy.place), type=_Document)
        parts = RootParts(
            environment=opened.environment,
            generation=opened.generation,
            key=Secret(b64url_decode(opened.key)),
            lasting=Secret(b64url_decode(opened.lasting)),
        )
        right = parts.root().deployment == copy.deployment and parts.generation == copy.generation
    except (msgspec.MsgspecError, ValueError):
        right = False
    if not right:
        raise ConfigurationError("the sealed root key is malformed")
    return parts


def open_one(unseal: Unseal, copies: list[Copy]) -> RootParts:
    """Open the first of these copies that opens.

    Raises:
        ConfigurationError: None opens with this provider.
        UnavailableError: The provider cannot answer now.
    """
    failure: CloisterError | None = None
    for copy in copies:
        try:
            return open_copy(unseal, copy)
        except ConfigurationError as error:
            failure = failure or error
    raise failure or ConfigurationError("there is no copy of the root key")


def copies_of(execute: Execute, *, provider: str | None = None, generation: int | None = None) -> list[Copy]:
    """The copies that the store has, newest generation first."""
    found = [
        Copy(
            id=str(row[0]),
            generation=int(row[1]),
            provider=str(row[2]),
            deployment=str(row[3]),
            sealed=bytes(row[4]),
        )
        for row in execute(_SELECT, {})
    ]
    return [
        copy for copy in found if provider in {None, copy.provider} and generation in {None, copy.generation}
    ]


def add_copy(execute: Execute, copy: Copy) -> None:
    """Keep a copy."""
    values = {
        "id": copy.id,
        "generation": copy.generation,
        "provider": copy.provider,
        "deployment": copy.deployment,
        "sealed": copy.sealed,
    }
    execute(_INSERT, values)


def delete_copy(execute: Execute, copy: Copy) -> None:
    """Keep a copy no longer."""
    execute(_DELETE, {"id": copy.id})
