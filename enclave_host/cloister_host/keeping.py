"""Open the root key of a deployment for those who keep it (`cloister host root`), beside hosts that serve."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cloister_host.attester import Attester
from cloister_host.attester.parts import build_attester
from cloister_host.audit import Audit
from cloister_host.settings import HostSettings
from cloister_host.store import Database, Store
from cloister_host.unseal import Unseal
from cloister_host.unseal.choose import open_unseal
from cloister_host.unseal.keeper import RootKeeper
from cloister_host.unseal.recovery import RecoveryUnseal
from cloister_host.unseal.root import check_provider, loader, open_root

__all__ = ["keep_root"]


@contextmanager
def keep_root(
    settings: HostSettings,
    *,
    lost: bool = False,
    attester: Attester | None = None,
    clock: Callable[[], float] = time.time,
) -> Iterator[tuple[RootKeeper, Callable[[HostSettings], Unseal]]]:
    """Open the root key as a host does, to rotate it or to destroy what came before; hosts may go on.

    Args:
        settings: As hosts are started with; the provider that opens the root key.
        lost: That provider is lost, and the shares that were brought are recovery shares.
        attester: One that was built elsewhere, instead of the choice of the settings.
        clock: Epoch seconds.

    Returns:
        Who acts on the root key, and what makes a provider out of settings.

    Raises:
        ConfigurationError: The root key does not open.
        UnavailableError: The provider does not answer.
    """
    parts = build_attester(settings.attester, state=settings.state, clock=clock, attester=attester)
    database = Database(settings.database_url)

    def provider(named: HostSettings) -> Unseal:
        check_provider(named.unseal, parts.machine.environment, accept_file_unseal=named.accept_file_unseal)
        return open_unseal(named, parts)

    try:
        database.migrate()
        unseal = RecoveryUnseal(settings.shamir) if lost else provider(settings)
        opened = open_root(database, unseal, parts.machine.environment)
        root = opened.root()
        root.generations.load = loader(unseal)
        store = Store(database, root.row_keys())
        yield RootKeeper(store, root.generations, opened, Audit(clock), clock), provider
    finally:
        database.close()
        parts.endorser.close()
