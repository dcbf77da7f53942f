"""Create the root key once, and unseal it at every start (PROTOCOL 4).

The sealed root stands in the store. Its environment is sealed with it, so that nobody can carry a root
born in hardware into a simulation, or the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from cloister.errors import ConfigurationError, UnavailableError
from cloister.secret import Secret
from cloister_host.keymanager.root import Environment, RootKey, wrapping_key
from cloister_host.store import Database, Tx
from cloister_host.unseal import Unseal
from cloister_host.unseal.copies import RootParts, add_copy, copies_of, open_one, seal_copy

__all__ = ["check_provider", "create_root", "loader", "open_root", "require_no_root", "unseal_root"]


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
    parts = RootParts.draw(environment)
    copy = seal_copy(unseal, parts)
    with database.begin(alone=True) as session:
        if copies_of(session.execute):
            raise _exists()
        add_copy(session.execute, copy)
    return parts.root()


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
    root = open_root(database, unseal, environment).root()
    root.generations.load = loader(unseal)
    return root


def open_root(database: Database, unseal: Unseal, environment: Environment) -> RootParts:
    """Open the newest generation that a provider has a copy of.

    Raises:
        ConfigurationError: As `unseal_root`.
        UnavailableError: The provider cannot answer now.
    """
    with database.begin() as session:
        copies = copies_of(session.execute)
    if not copies:
        raise ConfigurationError("this store has no root key", hint="run `cloister host init` first")
    own = [copy for copy in copies if copy.provider == unseal.name]
    if not own:
        others = " or ".join(sorted({copy.provider for copy in copies} - {"recovery"}))
        raise ConfigurationError(
            f"the root key was sealed by the provider {others}", hint=f"start with --unseal {others}"
        )
    parts = open_one(unseal, own)
    if parts.environment != environment:
        raise ConfigurationError(
            f"this root key was generated in the environment {parts.environment!r}, and this is another",
            hint="initialise a deployment of its own here",
        )
    return parts


def loader(unseal: Unseal) -> Callable[[Tx, int], Secret]:
    """Opens generations that come up, or are still needed, while a host runs."""
    return partial(_load, unseal)


def _load(unseal: Unseal, tx: Tx, generation: int) -> Secret:
    copies = copies_of(tx.execute, provider=unseal.name, generation=generation)
    if not copies:
        raise UnavailableError(
            f"the provider {unseal.name} has no copy of generation {generation} of the root key",
            retryable=False,
            hint="start this host with the provider that the root key was moved to",
        )
    return wrapping_key(open_one(unseal, copies).key)


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
    with database.begin() as session:
        if copies_of(session.execute):
            raise _exists()


def _exists() -> ConfigurationError:
    return ConfigurationError(
        "this store has a root key already", hint="start the host, or choose another store"
    )
