"""The append-only log: entries become leaves, and the tree over them is signed (PROTOCOL 8).

The database is not trusted. What the tree grows from is compared with the last signed head, and that head
with the newest one this process has seen; what does not fit stops the host from acting.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text

from cloister import jose
from cloister.errors import LogError, UnavailableError
from cloister.jose import b64url_decode, b64url_encode
from cloister.receipts.head import TreeHead, sign_head, verify_head_under
from cloister.receipts.merkle import EMPTY_ROOT, Fold, cover
from cloister.receipts.witness import LOG, NoteKey, WitnessAheadError, checkpoint, sign_note
from cloister_host.audit.audit import Audit, Written
from cloister_host.audit.tenants import TenantChains
from cloister_host.audit.tree import Tree
from cloister_host.audit.witness import Witness
from cloister_host.store import Store, TamperedError, Tx

__all__ = ["Log", "Proof"]

log = structlog.get_logger(__name__)

AT_ONCE: Final = 2000
"""Entries sequenced in one transaction: SQLite has one writer, and acts wait for it."""

COSIGN_ATTEMPTS: Final = 4
REPLY_BYTES: Final = 2048
"""What a reply says of the log has one length, so that it tells nothing about the rest of the reply."""

_SELECT: Final = text("SELECT token FROM log_heads WHERE id = 1")
_CREATE: Final = text("INSERT INTO log_heads (id, token) VALUES (1, :token)")
_REPLACE: Final = text("UPDATE log_heads SET token = :token WHERE id = 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Where an entry stands in the log, as of a head."""

    index: int
    path: Sequence[bytes]
    head: TreeHead


class Log:
    """One deployment's log, over a store that several replicas may share.

    Args:
        store: Where the log is kept.
        audit: Its entries.
        key: Signs tree heads; derived from the root key, so every replica has the same.
        clock: Epoch seconds.

    Attributes:
        failure: The table that was found to be tampered with, or empty.
    """

    def __init__(self, store: Store, audit: Audit, key: jose.Key, clock: Callable[[], float]) -> None:
        self.key: Final = key
        self._witness: Witness | None = None
        self._cosigned = 0
        self._shown: tuple[TreeHead, str] | None = None
        self.failure = ""
        self._store = store
        self._audit = audit
        self._clock = clock
        self._tree = Tree()
        self._chains = TenantChains()
        self._lock = threading.Lock()
        self._head: TreeHead | None = None

    # --- life ---------------------------------------------------------------------------------------

    def create(self, tx: Tx) -> None:
        """Begin the log of a new deployment with the head of the empty tree."""
        tx.execute(_CREATE, {"token": self._signed(0, EMPTY_ROOT, None).token})

    def open(self, witness: Witness | None = None) -> None:
        """Check the stored log as far as a start can wait for it, and sign a fresh head.

        The fresh head is later than any that was signed before: a client who saw a larger one then
        knows that the database was rolled back. What is found to be wrong is in `failure`.

        Args:
            witness: Who cosigns heads before clients are shown them.
        """
        self._witness = witness
        try:
            with self._store.begin(alone=True) as tx:
                head = self._current(tx)
                self._frontier(tx, head)
                self._audit.require_sequenced(tx, head.size)
                self._replace(tx, self._signed(head.size, head.root, head))
            self.cosign()
        except TamperedError as error:
            self._fail(error)
        except (UnavailableError, LogError) as error:
            if witness is None:
                raise
            log.warning("log.not_cosigned", message=str(error.args[0]))

    def sequence(self) -> int:
        """Give every waiting entry its place, and sign the tree; returns how many there were.

        Raises:
            TamperedError: The stored log is not the one that was signed.
        """
        mine, total = self._audit.waiting, 0
        try:
            while True:
                with self._store.begin(alone=True) as tx:
                    placed = self._sequence(tx)
                    if placed < AT_ONCE:
                        self._audit.require_none_lost(tx, mine)
                total += placed
                if placed < AT_ONCE:
                    return total
        except TamperedError as error:
            self._fail(error)
            raise

    def cosign(self) -> None:
        """Have the newest head cosigned by the witness, and show clients that one from now on.

        Raises:
            TamperedError: The witness has seen a larger log: the database was rolled back.
            UnavailableError: The witness does not answer; clients are shown the head before.
        """
        if self._witness is None:
            return
        for _ in range(COSIGN_ATTEMPTS):
            with self._store.begin() as tx:
                # Where another replica had a larger head cosigned, that one is in the store.
                head = self.head(tx, at_least=self._cosigned)
                if self._shown is not None and self._shown[0].token == head.token:
                    return
                if self._cosigned > head.size:
                    error = TamperedError("log_heads")
                    self._fail(error)
                    raise error
                path = self._tree.consistency(tx, self._cosigned, head.size)
            note = checkpoint(head)
            try:
                line = self._witness.cosign(self._cosigned, path, note, self._note_signature(note))
            except WitnessAheadError as other:
                self._cosigned = other.size
                continue
            self._witness.key.verify(note, [line])
            self._cosigned, self._shown = head.size, (head, line)
            return
        raise UnavailableError("the witness keeps seeing other sizes of this log")

    @property
    def note_key(self) -> NoteKey:
        """The log's key as witnesses know it."""
        public = b64url_decode(self.key.public().to_jwk()["x"])
        return NoteKey(name=f"cloister/{self._store.deployment}", algorithm=LOG, public=public)

    def _note_signature(self, note: str) -> str:
        seed = Ed25519PrivateKey.from_private_bytes(b64url_decode(self.key.to_jwk()["d"]))
        return sign_note(note, self.note_key, seed, now=int(self._clock()))

    def require_intact(self) -> None:
        """Refuse to act on a log that was tampered with.

        Raises:
            TamperedError: It was.
        """
        if self.failure:
            raise TamperedError(self.failure)

    # --- what it proves -----------------------------------------------------------------------------

    def head(self, tx: Tx, *, at_least: int = 0) -> TreeHead:
        """The newest head; read from the store where another replica may have a larger one."""
        head = self._head
        if head is None or head.size < at_least:
            self._keep(self._stored(tx))
            head = self._head
            assert head is not None
        return head

    def inclusion(self, tx: Tx, entry: Written) -> Proof | None:
        """Prove that an entry is in the log; None until it was given its place."""
        if entry.position is None:
            return None
        head = self.head(tx, at_least=entry.position + 1)
        if entry.position >= head.size:
            raise TamperedError("audit")
        path = self._tree.inclusion(tx, entry.position, head.size)
        return Proof(index=entry.position, path=path, head=head)

    def consistency(self, tx: Tx, first: int, second: int) -> list[bytes]:
        """Prove that a tree of size `second` continues one of size `first`."""
        return self._tree.consistency(tx, first, second)

    def nodes(self, tx: Tx, nodes: Sequence[tuple[int, int]]) -> list[bytes]:
        """Hashes of complete subtrees, given as (level, index)."""
        return self._tree.nodes(tx, nodes)

    def extent(self, tx: Tx, tenant: str) -> tuple[TreeHead, int, bytes]:
        """The head in the store, how many leaves of its tree are a tenant's, and the chain over them."""
        return (self._stored(tx), *self._chains.read(tx, tenant))

    def for_reply(self, tx: Tx, seen: int) -> bytes:
        """The member `log` of a reply to a client that last saw a tree of `seen` leaves: `,"log":{...}`."""
        head, cosignature = self._for_clients(tx, seen)
        path = self._tree.consistency(tx, seen, head.size) if 0 < seen <= head.size else []
        cosigned = f',"cosignatures":["{cosignature}"]' if cosignature else ""
        proof = b64url_encode(b"".join(path))
        member = f',"log":{{"head":"{head.token}","consistency":"{proof}"{cosigned}}}'
        return member.ljust(-(-len(member) // REPLY_BYTES) * REPLY_BYTES).encode()

    def _for_clients(self, tx: Tx, seen: int) -> tuple[TreeHead, str]:
        """The head that clients are shown: the newest, or where there is a witness the newest it cosigned."""
        if self._witness is None:
            return self.head(tx, at_least=seen), ""
        if self._shown is None:
            raise UnavailableError("the witness has not cosigned the log since this host started")
        return self._shown

    # ------------------------------------------------------------------------------------------------

    def _sequence(self, tx: Tx) -> int:
        head = self._current(tx)
        entries = self._audit.unsequenced(tx, limit=AT_ONCE)
        if not entries:
            tx.on_commit(lambda: self._keep(head))
            return 0
        tree = self._frontier(tx, head)
        leaves = [entry.recorded.leaf for entry in entries]
        self._tree.append(tx, head.size, leaves)
        self._audit.place(tx, entries, first=head.size)
        self._chains.extend(tx, head.size, [entry.tenant for entry in entries], leaves)
        for leaf in leaves:
            tree.add(0, leaf)
        self._replace(tx, self._signed(tree.size, tree.root(), head))
        return len(entries)

    def _frontier(self, tx: Tx, head: TreeHead) -> Fold:
        """The right edge of the stored tree, if it is the tree that was signed."""
        tree, nodes = Fold(), cover(0, head.size)
        for (level, _), found in zip(nodes, self._tree.nodes(tx, nodes), strict=True):
            tree.add(level, found)
        if not hmac.compare_digest(tree.root(), head.root):
            raise TamperedError("log_tiles")
        return tree

    def _current(self, tx: Tx) -> TreeHead:
        """The head that the next one follows; only for transactions that are alone."""
        newest, head = self._head, self._stored(tx)
        if newest is not None and (head.time < newest.time or head.size < newest.size):
            raise TamperedError("log_heads")
        return head

    def _stored(self, tx: Tx) -> TreeHead:
        """The head in the store. It may be behind this process's where the transaction began earlier."""
        row = tx.execute(_SELECT, {}).first()
        newest = self._head
        if row is None or not isinstance(token := row[0], str):
            raise TamperedError("log_heads")
        if newest is not None and token == newest.token:
            return newest
        try:
            return verify_head_under(token, key=self.key.public(), deployment=self._store.deployment)
        except LogError:
            raise TamperedError("log_heads") from None

    def _signed(self, size: int, root: bytes, previous: TreeHead | None) -> TreeHead:
        return sign_head(
            deployment=self._store.deployment,
            size=size,
            root=root,
            # Never behind the head before: clocks differ between replicas, and jump.
            time=max(int(self._clock() * 1000), previous.time + 1 if previous else 0),
            previous=previous,
            key=self.key,
        )

    def _replace(self, tx: Tx, head: TreeHead) -> None:
        tx.execute(_REPLACE, {"token": head.token})
        # A head is shown to nobody before what it stands for is committed.
        tx.on_commit(lambda: self._keep(head))

    def _keep(self, head: TreeHead) -> None:
        with self._lock:
            if self._head is None or head.time > self._head.time:
                self._head = head

    def _fail(self, error: TamperedError) -> None:
        if not self.failure:
            log.error("log.tampered", table=error.table)
        self.failure = error.table
