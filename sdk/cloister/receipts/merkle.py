"""The log's hash tree: arithmetic, and the two proofs (RFC 9162 section 2.1).

Node (level, index) is the root of the 2^level leaves from index * 2^level on. A proof is a list of such
nodes' hashes, or of the partial tree at the right edge.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from cloister.errors import LogError

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "MAX_PROOF_HASHES",
    "Fold",
    "consistency_ranges",
    "cover",
    "fold_right",
    "inclusion_ranges",
    "leaf_hash",
    "node_hash",
    "verify_consistency",
    "verify_inclusion",
]

HASH_BYTES: Final = 32
MAX_PROOF_HASHES: Final = 128
MAX_SIZE: Final = 2**62
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

Range = tuple[int, int]
Node = tuple[int, int]


def leaf_hash(salt: bytes, entry: bytes) -> bytes:
    """The leaf of one entry: SHA-256(0x00 || SHA-256(salt || entry)).

    Nobody guesses a 32-byte salt, so leaves can be published and give nothing away.
    """
    return hashlib.sha256(b"\x00" + hashlib.sha256(salt + entry).digest()).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The parent of two nodes: SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def cover(start: int, end: int) -> list[Node]:
    """The fewest complete subtrees that together hold the leaves [start, end), from left to right."""
    nodes = []
    while start < end:
        level = (end - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        nodes.append((level, start >> level))
        start += 1 << level
    return nodes


def fold_right(hashes: Sequence[bytes]) -> bytes:
    """The root over the subtrees of `cover(0, size)`; of none it is the hash of nothing."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The leaf ranges whose roots make the inclusion proof of one leaf, in the proof's order."""
    assert 0 <= index < size
    start, end, path = 0, size, []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start = middle
    return path[::-1]


def consistency_ranges(first: int, second: int) -> list[Range]:
    """The leaf ranges whose roots make the consistency proof between two sizes, in the proof's order."""
    assert 0 <= first <= second
    if first in {0, second}:
        return []
    start, end, path, whole = 0, second, [], True
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start, whole = middle, False
    # A verifier knows the old root; it is left out where it is itself a node of the new tree.
    return ([] if whole else [(start, end)]) + path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf stands at an index of a tree (RFC 9162 section 2.1.3.2).

    Raises:
        LogError: It does not.
    """
    if not 0 <= index < size <= MAX_SIZE or len(path) > MAX_PROOF_HASHES:
        raise LogError("the inclusion proof does not hold")
    node, last, found = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise LogError("the inclusion proof does not hold")
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        node, last = node >> 1, last >> 1
    if last != 0 or not hmac.compare_digest(found, root):
        raise LogError("the inclusion proof does not hold")


def verify_consistency(
    first: int, second: int, *, first_root: bytes, second_root: bytes, path: Sequence[bytes]
) -> None:
    """Check that a tree of size `second` begins with the one of size `first` (RFC 9162 section 2.1.4.2).

    Raises:
        LogError: It does not.
    """
    refusal = LogError("the log's tree does not continue the one that was seen before")
    if (
        not 0 <= first <= second <= MAX_SIZE
        or len(path) > MAX_PROOF_HASHES
        or bool(path) == (first in {0, second})
    ):
        raise refusal
    if not path:
        if not hmac.compare_digest(first_root, second_root if first else EMPTY_ROOT):
            raise refusal
        return
    steps = [first_root, *path] if first & (first - 1) == 0 else list(path)
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = steps[0]
    for sibling in steps[1:]:
        if last == 0:
            raise refusal
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    if last != 0 or not hmac.compare_digest(old + new, first_root + second_root):
        raise refusal


class Fold:
    """Builds the root of a tree from its leaves, or whole subtrees of it, given from left to right."""

    def __init__(self) -> None:
        self._stack: list[tuple[int, bytes]] = []
        self.size = 0

    def add(self, level: int, found: bytes) -> None:
        """Take the next subtree.

        Raises:
            LogError: A subtree of this level cannot stand here.
        """
        if len(found) != HASH_BYTES or not 0 <= level < MAX_SIZE.bit_length() or self.size & (1 << level) - 1:
            raise LogError("a part of the tree is malformed")
        self.size += 1 << level
        while self._stack and self._stack[-1][0] == level:
            found = node_hash(self._stack.pop()[1], found)
            level += 1
        self._stack.append((level, found))

    def root(self) -> bytes:
        """The root of what was taken so far."""
        return fold_right([found for _, found in self._stack])


def _split(size: int) -> int:
    """The largest power of two below a size of at least two."""
    return 1 << (size - 1).bit_length() - 1
