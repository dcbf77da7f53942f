"""A log in memory, with its key and keyset: what a client sees of one, honest or not."""

from __future__ import annotations

from cloister import jose
from cloister.protocol import Keyset, KeysetKey, sign_keyset
from cloister.receipts.head import TreeHead, sign_head
from cloister.receipts.merkle import Fold, consistency_ranges, inclusion_ranges

__all__ = ["MemoryLog"]

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
