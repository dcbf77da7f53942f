"""The audit log: what an act pays, and what proofs and exports cost (PROTOCOL 8), beside pymerkle.

The tree of a million leaves is in the store, so a proof is measured as the host gives it: read from SQLite.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from figures import Row, median_us, show

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cloister.receipts.export import ExportVerifier
from cloister.receipts.merkle import verify_inclusion
from cloister_host.audit import Event
from cloister_host.audit.tree import Tree
from support.host_world import HostWorld
from support.log_double import MemoryLog

LEAVES = 1_000_000
ENTRIES = 100_000
PEER_LEAVES = 20_000
ENTRY = (
    b'{"act":"key.create","at":1800000000000,"correlation_id":"0123456789abcdef","detail":{"kid":"ssn.1"},'
    b'"id":"0123456789abcdef0123456789abcdef","kind":"person","on_behalf_of":"","outcome":"done",'
    b'"principal":"admin","resource":"key/ssn","tenant":"acme"}'
)


def rows() -> list[Row]:
    """Measure everything."""
    return [*_acts(), *_sequencing(), *_proofs(), _export()]


def _acts() -> Iterator[Row]:
    with _world() as host, host.store.begin() as tx:
        audit, admin = host.services.audit, host.admin
        record = median_us(lambda: audit.record(tx, admin, act="act", resource="key/ssn"))
        both = median_us(
            lambda: (
                host.services.grants.require(tx, admin, "key.manage", "key/ssn"),
                audit.record(tx, admin, act="act", resource="key/ssn"),
            )
        )
    yield Row(what="record an entry in an open transaction", ours=record)
    yield Row(what="authorise and record, in an open transaction", ours=both, budget=150)


def _sequencing() -> Iterator[Row]:
    with _world() as host:
        count, rounds = 2000, []
        for _ in range(5):
            with host.store.begin() as tx:
                events = [Event(resource="key/ssn")] * count
                host.services.audit.record_many(tx, host.admin, act="act", events=events)
            started = time.perf_counter()
            host.services.log.sequence()
            rounds.append((time.perf_counter() - started) / count * 1e6)
        yield Row(what="sequence an entry, 2,000 at once, with commits", ours=sorted(rounds)[2])


def _proofs() -> Iterator[Row]:
    leaves = [hashlib.sha256(number.to_bytes(8, "big")).digest() for number in range(LEAVES)]
    with _world() as host:
        tree = Tree()
        for start in range(0, LEAVES, 100_000):
            with host.store.begin() as tx:
                tree.append(tx, start, leaves[start : start + 100_000])
        with host.store.begin() as tx:
            numbers = iter(range(10**9))

            def cold() -> None:
                tree.forget()
                tree.inclusion(tx, next(numbers) * 7919 % LEAVES, LEAVES)

            ours = median_us(cold)
            warm = median_us(lambda: tree.inclusion(tx, next(numbers) * 7919 % LEAVES, LEAVES))
            consistency = median_us(lambda: tree.consistency(tx, LEAVES - 1 - next(numbers) % 1000, LEAVES))
            path = tree.inclusion(tx, 4711, LEAVES)
            root = MemoryRoot(leaves).root
    peer = _peer()
    yield Row(
        what="inclusion proof at 1,000,000 leaves, nothing remembered",
        ours=ours,
        budget=1000,
        peer=f"pymerkle at {PEER_LEAVES:,}" if peer else "",
        theirs=peer,
    )
    yield Row(what="inclusion proof at 1,000,000 leaves, tiles remembered", ours=warm, budget=1000)
    yield Row(what="consistency proof of a reply at 1,000,000 leaves", ours=consistency)
    verify = median_us(lambda: verify_inclusion(leaves[4711], 4711, LEAVES, path, root))
    yield Row(what="verify an inclusion proof at 1,000,000 leaves", ours=verify)


class MemoryRoot:
    """The root of a list of leaves."""

    def __init__(self, leaves: list[bytes]) -> None:
        log = MemoryLog()
        log.leaves = leaves
        self.root = log.root()


def _peer() -> float | None:
    if importlib.util.find_spec("pymerkle") is None:
        print("peer pymerkle: not installed")
        return None
    import pymerkle

    tree: Any = pymerkle.InmemoryTree(algorithm="sha256")
    for number in range(PEER_LEAVES):
        tree.append_entry(number.to_bytes(8, "big"))
    numbers = iter(range(10**9))
    return median_us(lambda: tree.prove_inclusion(next(numbers) * 7919 % PEER_LEAVES + 1, PEER_LEAVES))


def _export() -> Row:
    log = MemoryLog()
    log.leaves = [bytes(32)] * ENTRIES
    lines = [line.encode() for line in log.export(dict.fromkeys(range(ENTRIES), ENTRY))]
    rounds = []
    for _ in range(3):
        started = time.perf_counter()
        verifier = ExportVerifier(lines[0], deployment=log.keyset.deployment)
        for line in lines[1:]:
            verifier.feed(line)
        assert verifier.finish().entries == ENTRIES
        rounds.append((time.perf_counter() - started) * 1000)
    return Row(what="verify an export of 100,000 entries", ours=sorted(rounds)[1], unit="ms", budget=2000)


@contextmanager
def _world() -> Iterator[HostWorld]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        host = HostWorld(Path(folder))
        yield host
        host.close()


if __name__ == "__main__":
    show("audit", rows())
