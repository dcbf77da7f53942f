"""The heads a client has seen: what makes a rollback or a fork of the log show (PROTOCOL 8).

A request says how large the tree was when the client last looked, the reply brings the newest head and
the proof between the two. So each head is held against one that was kept before the request was sent.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from cloister import jose
from cloister.errors import LogError
from cloister.protocol.keyset import Keyset
from cloister.receipts.head import TreeHead, log_key_of, verify_head
from cloister.receipts.merkle import HASH_BYTES, MAX_PROOF_HASHES, verify_consistency
from cloister.receipts.witness import NoteKey, checkpoint

__all__ = ["HeadKeeper", "HeadStore", "check_order", "read_path"]

MAX_LAG_MILLISECONDS: Final = 600_000
"""How far a replica, or a reply that was stored for a repetition, may be behind."""

MAX_COSIGNATURES: Final = 16

_NO_LOG: Final = "log: this host's keyset names no log key; its acts leave no tree heads"
_FIRST: Final = "log: no head of this deployment was known before this client's first reply"
_ALONE: Final = "log: no witness is named; a split view between clients that never talk is not detected"
_BEHIND: Final = "log: a reply brought an older head, which was not compared"


class HeadStore(Protocol):
    """Port: keeps the signed form of the last head of each deployment between runs."""

    def load(self, deployment: str) -> str | None:
        """The head that was kept, if there is one."""
        ...

    def save(self, head: TreeHead) -> None:
        """Keep a head in place of an older one."""
        ...


class HeadKeeper:
    """Keeps the last head of each deployment, and demands that every later one continues it.

    Safe to share between threads.

    Args:
        store: Keeps heads between runs.
        witnesses: Each must have cosigned every head.
    """

    def __init__(self, store: HeadStore | None = None, *, witnesses: Sequence[NoteKey] = ()) -> None:
        self._store = store
        self._witnesses = witnesses
        self._lock = threading.Lock()
        self._kept: dict[str, TreeHead] = {}
        self._notes: dict[str, None] = {} if witnesses else {_ALONE: None}

    @property
    def not_checked(self) -> tuple[str, ...]:
        """What could not be verified about the log so far."""
        return tuple(self._notes)

    def kept(self, keyset: Keyset) -> TreeHead | None:
        """The last head of a deployment.

        Raises:
            LogError: What the store kept is not a head of this deployment.
        """
        with self._lock:
            if keyset.deployment not in self._kept and self._store is not None:
                token = self._store.load(keyset.deployment)
                if token is not None and log_key_of(keyset) is not None:
                    self._kept[keyset.deployment] = verify_head(token, keyset=keyset)
            return self._kept.get(keyset.deployment)

    def accept(self, reply: Mapping[str, Any], *, keyset: Keyset, base: TreeHead | None) -> None:
        """Hold a reply's head against the one kept before the request was sent.

        Args:
            reply: The sealed reply; its member `log` has the head and the proof.
            keyset: The appraised keyset of the host.
            base: What `kept` gave when the request was sealed.

        Raises:
            LogError: The log was rolled back or forked, or the reply does not prove otherwise.
        """
        if log_key_of(keyset) is None:
            self._note(_NO_LOG)
            return
        part = reply.get("log")
        if part is None and "error" in reply:
            return  # whoever could not be authenticated is shown no head
        if not isinstance(part, dict) or not isinstance(token := part.get("head"), str):
            raise LogError("the reply brings no tree head")
        if base is not None and token == base.token:
            return
        head = verify_head(token, keyset=keyset)
        self._require_cosigned(head, part)
        if base is None:
            self._note(_FIRST)
        else:
            check_order(base, head)
            if head.size < base.size:
                self._note(_BEHIND)
                return
            verify_consistency(
                base.size, head.size, first_root=base.root, second_root=head.root, path=_path(part)
            )
        self._keep(head, base)

    def _require_cosigned(self, head: TreeHead, part: Mapping[str, Any]) -> None:
        lines = part.get("cosignatures")
        said = [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []
        for witness in self._witnesses:
            witness.verify(checkpoint(head), said[:MAX_COSIGNATURES])

    def _keep(self, head: TreeHead, base: TreeHead | None) -> None:
        with self._lock:
            kept = self._kept.get(head.deployment)
            if kept is not None:
                check_order(kept, head)
                # Another reply was faster: this head was not compared with that one, so it is not kept.
                if base is None or kept.token != base.token:
                    return
            self._kept[head.deployment] = head
            if self._store is not None:
                self._store.save(head)

    def _note(self, line: str) -> None:
        self._notes.setdefault(line)


def check_order(one: TreeHead, other: TreeHead) -> None:
    """Check what needs no proof: of two heads of one log, the later one is not the smaller.

    Raises:
        LogError: The log was rolled back or forked.
    """
    older, newer = (one, other) if one.time <= other.time else (other, one)
    if older.size > newer.size:
        raise LogError(
            "the log was rolled back: a later head has fewer leaves",
            hint="an old copy of the host's database may have been restored; nothing after it is proven",
        )
    if older.size == newer.size and older.root != newer.root:
        raise LogError("the log was forked: two heads of one size differ")
    if other.time + MAX_LAG_MILLISECONDS < one.time:
        raise LogError("the log's head is much older than one that was seen before")


def read_path(text: Any, *, most: int = MAX_PROOF_HASHES) -> list[bytes]:
    """Read a proof: the base64url of at most so many hashes, one after the other.

    Raises:
        LogError: It is malformed.
    """
    try:
        raw = jose.b64url_decode(text) if isinstance(text, str) else None
    except ValueError:
        raw = None
    if raw is None or len(raw) % HASH_BYTES or len(raw) > most * HASH_BYTES:
        raise LogError("the log proof is malformed")
    return [raw[start : start + HASH_BYTES] for start in range(0, len(raw), HASH_BYTES)]


def _path(part: Mapping[str, Any]) -> list[bytes]:
    return read_path(part.get("consistency"))
