"""What a staged operation works with: transactions, and work outside the store between them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import msgspec

from cloister_host.store import Store, Tx

__all__ = ["Act"]


class Act:
    """What a staged operation works with.

    Attributes:
        recorded: Whether the first transaction is committed.
        reply: The sealed reply, once there is one.
        length: Characters that a failure is padded to: as many as a result would have had.

    Its first transaction is the one that recorded the request and claimed its effect. Its result is
    remembered, and replied with, in the transaction of its effect.
    """

    def __init__(
        self,
        *,
        request_digest: str,
        store: Store,
        first: ExitStack,
        tx: Tx,
        answer: Callable[[Tx, bytes], str],
    ) -> None:
        self.request_digest = request_digest
        self._store = store
        self._first: ExitStack | None = first
        self._tx = tx
        self._answer = answer
        self.reply = ""
        self.length = 0
        self.recorded = False

    @contextmanager
    def begin(self) -> Iterator[Tx]:
        """A transaction of the store."""
        first, self._first = self._first, None
        if first is None:
            with self._store.begin() as tx:
                yield tx
        else:
            with first:
                yield self._tx
            self.recorded = True

    def finish(self, tx: Tx, result: msgspec.Struct) -> None:
        """Remember the result, in the effect's own transaction."""
        self.reply = self._answer(tx, msgspec.json.encode(result))

    def abandon(self) -> None:
        """Undo the first transaction if the operation failed before it began."""
        if self._first is not None:
            self._first.__exit__(*sys.exc_info())
