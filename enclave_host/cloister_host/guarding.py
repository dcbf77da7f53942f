"""The guardian of the store that the settings ask for."""

from __future__ import annotations

from cloister_host.backups.records import incarnation
from cloister_host.settings import HostSettings
from cloister_host.store import RowKeys, Store, TamperedError
from cloister_host.store.anchors import FileAnchor, Guardian

__all__ = ["guardian_of"]


def guardian_of(settings: HostSettings, store: Store, keys: RowKeys) -> Guardian:
    """The guardian of a store, which knows how often that was restored."""
    shared = settings.workers > 1
    anchor = None if settings.anchor is None else FileAnchor(settings.anchor)
    try:
        with store.begin() as tx:
            current = incarnation(tx)
    except TamperedError:
        # Its check will say what is wrong.
        return Guardian(store, keys, anchor, shared=shared)
    return Guardian(store, keys, anchor, incarnation=(current.number, current.name), shared=shared)
