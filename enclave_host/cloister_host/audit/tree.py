"""The log's hash tree in the store, in tiles of 32 nodes (the layout of C2SP tlog-tiles, but narrower).

Only complete nodes are stored, so a tile that is full never changes, and a proof reads one tile for every
five levels. Nothing here is trusted: before the tree grows its root is compared with the last signed head,
and a proof over a changed tile does not hold.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import bindparam, text

from cloister.receipts.merkle import (
    HASH_BYTES,
    consistency_ranges,
    cover,
    fold_right,
    inclusion_ranges,
    node_hash,
)
from cloister_host.store import TamperedError, Tx

__all__ = ["Tree"]

TILE_LEVELS: Final = 5
TILE_NODES: Final = 1 << TILE_LEVELS
TILE_BYTES: Final = TILE_NODES * HASH_BYTES
REMEMBERED_TILES: Final = 8192
_LEVEL_SHIFT: Final = 56

_SELECT: Final = text("SELECT id, hashes FROM log_tiles WHERE id IN :ids").bindparams(
    bindparam("ids", expanding=True)
)
_WRITE: Final = text(
    "INSERT INTO log_tiles (id, hashes) VALUES (:id, :hashes)"
    " ON CONFLICT (id) DO UPDATE SET hashes = excluded.hashes"
)


class Tree:
    """Reads and grows the tree; remembers the tiles that were used last."""

    def __init__(self) -> None:
        self._tiles: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def inclusion(self, tx: Tx, index: int, size: int) -> list[bytes]:
        """The inclusion proof of one leaf."""
        return self._roots(tx, inclusion_ranges(index, size))

    def consistency(self, tx: Tx, first: int, second: int) -> list[bytes]:
        """The consistency proof between two sizes."""
        return self._roots(tx, consistency_ranges(first, second))

    def nodes(self, tx: Tx, nodes: Sequence[tuple[int, int]]) -> list[bytes]:
        """The hashes of complete nodes, given as (level, index).

        Raises:
            TamperedError: A tile is missing or cut short.
        """
        wanted = {_tile_of(node): _end_in_tile(node) for node in sorted(nodes, key=_end_in_tile)}
        tiles = self._read(tx, wanted)
        return [_node_in(tiles[_tile_of(node)], node) for node in nodes]

    def append(self, tx: Tx, size: int, leaves: Sequence[bytes]) -> None:
        """Grow a tree of `size` leaves whose root was checked; its tiles are remembered once committed."""
        level, entries, written = 0, list(leaves), dict[int, bytes]()
        while entries:
            place, filled = divmod(size >> TILE_LEVELS * level, TILE_NODES)
            tile_id = _tile_id(level, place)
            begun = self._read(tx, {tile_id: filled})[tile_id][: filled * HASH_BYTES] if filled else b""
            hashes = begun + b"".join(entries)
            entries = []
            for start in range(0, len(hashes), TILE_BYTES):
                tile = hashes[start : start + TILE_BYTES]
                written[_tile_id(level, place + start // TILE_BYTES)] = tile
                if len(tile) == TILE_BYTES:
                    entries.append(_complete(tile))
            level += 1
        tx.execute_many(_WRITE, [{"id": tile_id, "hashes": tile} for tile_id, tile in written.items()])
        tx.on_commit(lambda: self._remember(written))

    def forget(self) -> None:
        """Read every tile anew from now on."""
        with self._lock:
            self._tiles.clear()

    def _roots(self, tx: Tx, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        parts = [cover(start, end) for start, end in ranges]
        hashes = iter(self.nodes(tx, [node for part in parts for node in part]))
        return [fold_right([next(hashes) for _ in part]) for part in parts]

    def _read(self, tx: Tx, wanted: dict[int, int]) -> dict[int, bytes]:
        """Tiles with at least so many nodes each."""
        with self._lock:
            found = {
                tile_id: tile
                for tile_id, width in wanted.items()
                if (tile := self._tiles.get(tile_id)) is not None and len(tile) >= width * HASH_BYTES
            }
            for tile_id in found:
                self._tiles.move_to_end(tile_id)
        if missing := wanted.keys() - found.keys():
            read = self._load(tx, missing)
            for tile_id in missing:
                tile = read.get(tile_id)
                if not isinstance(tile, bytes) or not wanted[tile_id] * HASH_BYTES <= len(tile) <= TILE_BYTES:
                    raise TamperedError("log_tiles")
                found[tile_id] = tile
            self._remember(read)
        return found

    def _load(self, tx: Tx, ids: Collection[int]) -> dict[int, bytes]:
        return dict(map(tuple, tx.execute(_SELECT, {"ids": sorted(ids)})))

    def _remember(self, tiles: dict[int, bytes]) -> None:
        with self._lock:
            self._tiles.update(tiles)
            for tile_id in tiles:
                self._tiles.move_to_end(tile_id)
            while len(self._tiles) > REMEMBERED_TILES:
                self._tiles.popitem(last=False)


def _tile_id(level: int, place: int) -> int:
    return level << _LEVEL_SHIFT | place


def _tile_of(node: tuple[int, int]) -> int:
    level, rest = divmod(node[0], TILE_LEVELS)
    return _tile_id(level, node[1] << rest >> TILE_LEVELS)


def _end_in_tile(node: tuple[int, int]) -> int:
    """How many nodes of its tile a node needs, from the tile's start."""
    rest = node[0] % TILE_LEVELS
    return ((node[1] << rest) % TILE_NODES) + (1 << rest)


def _node_in(tile: bytes, node: tuple[int, int]) -> bytes:
    rest = node[0] % TILE_LEVELS
    start = (node[1] << rest) % TILE_NODES * HASH_BYTES
    return _complete(tile[start : start + (HASH_BYTES << rest)])


def _complete(hashes: bytes) -> bytes:
    """The root over a power of two of nodes."""
    nodes = [hashes[start : start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)]
    while len(nodes) > 1:
        nodes = list(map(node_hash, nodes[::2], nodes[1::2]))
    return nodes[0]
