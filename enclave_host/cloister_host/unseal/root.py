"""Create the root key once, and unseal it at every start (PROTOCOL 4).

The sealed root stands in the store. Its environment is sealed with it, so that nobody can carry a root
born in hardware into a simulation, or the other way round.
"""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import text

from cloister.errors import ConfigurationError
from cloister.jose import b64url_decode, b64url_encode
from cloister.secret import Secret
from cloister_host.keymanager.root import Environment, RootKey
from cloister_host.store import Database
from cloister_host.store.canonical import canonical
from cloister_host.unseal import Unseal

__all__ = ["check_provider", "create_root", "require_no_root", "unseal_root"]

_INSERT: Final = text(
    "INSERT INTO roots (generation, provider, sealed) VALUES (1, :provider, :sealed)"
    " ON CONFLICT (generation) DO NOTHING"
)
_SELECT: Final = text("SELECT provider, sealed FROM roots WHERE generation = 1")


class _Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is sealed: the root key and where it was generated."""

    environment: Environment
    key: str


def create_root(
    database: Database, unseal: Unseal, environment: Environment, *, accept_file_unseal: bool
) -> RootKey:
    """Generate the root key of a new deployment, and keep it sealed.

    Args:
        database: A migrated database.
        unseal: Who seals it.
        environment: What the attester says this machine is.
        accept_file_unseal: Use the provider `file` outside a simulation. It is attested, and refused
            by production policies.

    Raises:
        ConfigurationError: There is a root key already, or the provider is not accepted here.
    """
    check_provider(unseal.name, environment, accept_file_unseal=accept_file_unseal)
    require_no_root(database)
    root = RootKey.generate(environment)
    document = canonical(_Sealed(environment=environment, key=b64url_encode(root.reveal())))
    with database.begin() as connection:
        values = {"provider": unseal.name, "sealed": unseal.wrap(document)}
        if connection.execute(_INSERT, values).rowcount != 1:
            raise _exists()
    return root


def unseal_root(
    database: Database, unseal: Unseal, environment: Environment, *, accept_file_unseal: bool
) -> RootKey:
    """Unseal the root key.

    Args:
        database: A migrated database.
        unseal: The provider that sealed it.
        environment: What the attester says this machine is.
        accept_file_unseal: See `create_root`.

    Raises:
        ConfigurationError: There is no root key, another provider sealed it, it was generated in
            another environment, or the provider is not accepted here.
        UnavailableError: The provider cannot answer now.
    """
    check_provider(unseal.name, environment, accept_file_unseal=accept_file_unseal)
    found = _sealed_root(database)
    if found is None:
        raise ConfigurationError("this store has no root key", hint="run `cloister host init` first")
    provider, sealed = found
    if provider != unseal.name:
        raise ConfigurationError(
            f"the root key was sealed by the provider {provider}", hint=f"start with --unseal {provider}"
        )
    try:
        opened = msgspec.json.decode(unseal.unwrap(sealed), type=_Sealed)
        root = RootKey(Secret(b64url_decode(opened.key)), opened.environment)
    except (msgspec.MsgspecError, ValueError):
        raise ConfigurationError("the sealed root key is malformed") from None
    if root.environment != environment:
        raise ConfigurationError(
            f"this root key was generated in the environment {root.environment!r}, and this is another",
            hint="initialise a deployment of its own here",
        )
    return root


def check_provider(provider: str, environment: Environment, *, accept_file_unseal: bool) -> None:
    """Refuse a provider that would protect nothing in this environment.

    Raises:
        ConfigurationError: It is `file` outside a simulation, and was not accepted by name.
    """
    if provider == "file" and environment != "simulated" and not accept_file_unseal:
        raise ConfigurationError(
            "the unseal provider `file` is for simulations",
            hint="use a provider in hardware, or accept it by name: --accept-file-unseal",
        )


def require_no_root(database: Database) -> None:
    """Refuse a store that has a root key.

    Raises:
        ConfigurationError: It has one.
    """
    if _sealed_root(database) is not None:
        raise _exists()


def _sealed_root(database: Database) -> tuple[str, bytes] | None:
    with database.begin() as connection:
        found = connection.execute(_SELECT).first()
    if found is None:
        return None
    provider, sealed = found
    return str(provider), bytes(sealed)


def _exists() -> ConfigurationError:
    return ConfigurationError(
        "this store has a root key already", hint="start the host, or choose another store"
    )
