"""A log in memory, with its key and keyset: what a client sees of one, honest or not."""

from __future__ import annotations

import hashlib

from cloister import jose
from cloister.protocol import AttestationDocument, Keyset, KeysetKey, sign_keyset
from cloister.receipts.export import (
    EMPTY_CHAIN,
    Extent,
    end_line,
    entry_line,
    extend_chain,
    header_line,
    sign_extent,
)
from cloister.receipts.head import TreeHead, sign_head
from cloister.receipts.merkle import Fold, consistency_ranges, cover, inclusion_ranges, leaf_hash

__all__ = ["MemoryLog", "salt_of"]

NOW = 1_800_000_000
DAY = 86_400


class MemoryLog:
    """Leaves, and what a host would sign and prove over them.

    Args:
        like: Another log with the same keys: the other side of a fork.
    """

    def __init__(self, *, like: MemoryLog | None = None) -> None:
        self.leaves: list[bytes] = list(like.leaves) if like else []
        self.time = like.time if like else NOW * 1000
        self.key = like.key if like else jose.generate_key("EdDSA", kid="log-1")
        self.deployment_key = like.deployment_key if like else jose.generate_key("EdDSA")
        self.keyset = like.keyset if like else self._keyset()

    def _keyset(self) -> Keyset:
        jwk = self.key.public().to_jwk()
        del jwk["kid"]
        return sign_keyset(
            keys=(KeysetKey(role="log", kid="log-1", jwk=jwk, not_before=NOW - 60, expires=NOW + DAY),),
            config={},
            holders=(),
            issued_at=NOW,
            expires=NOW + DAY,
            deployment_key=self.deployment_key,
        )

    def grow(self, *leaves: bytes) -> TreeHead:
        self.leaves += leaves
        self.time += 1
        return self.head()

    def root(self, start: int = 0, end: int | None = None) -> bytes:
        fold = Fold()
        for leaf in self.leaves[start:end]:
            fold.add(0, leaf)
        return fold.root()

    def head(self, size: int | None = None, *, time: int | None = None) -> TreeHead:
        return sign_head(
            deployment=self.keyset.deployment,
            size=len(self.leaves) if size is None else size,
            root=self.root(0, size),
            time=self.time if time is None else time,
            previous=None,
            key=self.key,
        )

    def consistency(self, first: int, second: int) -> list[bytes]:
        return [self.root(start, end) for start, end in consistency_ranges(first, second)]

    def inclusion(self, index: int, size: int) -> list[bytes]:
        return [self.root(start, end) for start, end in inclusion_ranges(index, size)]

    def reply(self, seen: int, head: TreeHead | None = None) -> dict[str, object]:
        """A sealed reply's members, to a client that saw a tree of `seen` leaves."""
        head = head or self.head()
        path = self.consistency(seen, head.size) if 0 < seen <= head.size else []
        return {
            "result": {},
            "log": {"head": head.token, "consistency": jose.b64url_encode(b"".join(path))},
        }

    # --- exports ---

    def export(self, mine: dict[int, bytes], *, tenant: str = "acme") -> list[str]:
        """The lines of a tenant's export; `mine` has its entries by index, whose leaves are put in here."""
        chain = EMPTY_CHAIN
        for index, entry in sorted(mine.items()):
            self.leaves[index] = leaf_hash(salt_of(index), entry)
            chain = extend_chain(chain, index, self.leaves[index])
        head = self.grow()
        extent = Extent(
            deployment=self.keyset.deployment, tenant=tenant, size=head.size, entries=len(mine), chain=chain
        )
        lines = [header_line(head=head, extent=sign_extent(extent, key=self.key), evidence=self.evidence())]
        at = 0
        for index, entry in sorted(mine.items()):
            lines.append(
                entry_line(index=index, salt=salt_of(index), before=self._between(at, index), entry=entry)
            )
            at = index + 1
        lines.append(end_line(size=head.size, before=self._between(at, head.size)))
        return lines

    def evidence(self) -> AttestationDocument:
        return AttestationDocument(format="simulated", evidence=b"{}", keyset=self.keyset.token)

    def _between(self, start: int, end: int) -> list[bytes]:
        return [self.root(i << level, (i + 1) << level) for level, i in cover(start, end)]


def salt_of(index: int) -> bytes:
    return hashlib.sha256(f"salt {index}".encode()).digest()
