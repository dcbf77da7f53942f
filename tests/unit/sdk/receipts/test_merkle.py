"""The tree's arithmetic against published vectors, brute force and a second implementation."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.errors import LogError
from cloister.receipts.merkle import (
    EMPTY_ROOT,
    Fold,
    consistency_ranges,
    cover,
    fold_right,
    inclusion_ranges,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

# The test tree of the Certificate Transparency implementations (RFC 6962), and its root at each size.
CT_ENTRIES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = [
    bytes.fromhex(text)
    for text in (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
LEAVES = [hashlib.sha256(b"\x00" + str(number).encode()).digest() for number in range(70)]


def brute_root(leaves):
    """RFC 9162 section 2.1.1, as it is written."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(brute_root(leaves[:k]), brute_root(leaves[k:]))


def inclusion(leaves, index):
    return [brute_root(leaves[start:end]) for start, end in inclusion_ranges(index, len(leaves))]


def consistency(leaves, first):
    return [brute_root(leaves[start:end]) for start, end in consistency_ranges(first, len(leaves))]


def folded(leaves):
    fold = Fold()
    for leaf in leaves:
        fold.add(0, leaf)
    return fold.root()


def test_roots_are_those_of_certificate_transparency():
    leaves = [hashlib.sha256(b"\x00" + entry).digest() for entry in CT_ENTRIES]
    for size, root in enumerate(CT_ROOTS, start=1):
        assert folded(leaves[:size]) == root == brute_root(leaves[:size])
    assert folded([]) == EMPTY_ROOT == brute_root([])


def test_a_leaf_is_salted():
    salt, entry = bytes(range(32)), b'{"act":"x"}'
    inner = hashlib.sha256(salt + entry).digest()
    assert leaf_hash(salt, entry) == hashlib.sha256(b"\x00" + inner).digest()


@pytest.mark.parametrize("size", range(1, 70))
def test_every_inclusion_proof_holds_and_no_other(size):
    leaves, root = LEAVES[:size], brute_root(LEAVES[:size])
    for index in range(size):
        path = inclusion(leaves, index)
        verify_inclusion(leaves[index], index, size, path, root)
        for wrong in ((index + 1) % size, size, -1):
            if wrong != index:
                with pytest.raises(LogError):
                    verify_inclusion(leaves[index], wrong, size, path, root)
        with pytest.raises(LogError):
            verify_inclusion(leaves[index], index, size, [*path, root], root)
        if path:
            with pytest.raises(LogError):
                verify_inclusion(leaves[index], index, size, path[:-1], root)
            with pytest.raises(LogError):
                verify_inclusion(leaves[index], index, size, [bytes(32), *path[1:]], root)
        with pytest.raises(LogError):
            verify_inclusion(bytes(32), index, size, path, root)


@pytest.mark.parametrize("size", range(1, 70))
def test_every_consistency_proof_holds_and_no_other(size):
    leaves = LEAVES[:size]
    for first in range(size + 1):
        path = consistency(leaves, first)
        roots = {"first_root": brute_root(leaves[:first]), "second_root": brute_root(leaves)}
        verify_consistency(first, size, path=path, **roots)
        others = [
            (first, size, {**roots, "path": [*path, bytes(32)]}),
            (first, size, {**roots, "path": path, "first_root": bytes(32)}),
            (size + 1, size, {**roots, "path": path}),
            (-1, size, {**roots, "path": path}),
        ]
        if first:
            others.append((first, size, {**roots, "path": path, "second_root": bytes(32)}))
        if path:
            others += [
                (first, size, {**roots, "path": path[:-1]}),
                (first, size, {**roots, "path": [bytes(32), *path[1:]]}),
                (first, size, {**roots, "path": [*path[:-1], bytes(32)]}),
            ]
        for one, two, arguments in others:
            with pytest.raises(LogError):
                verify_consistency(one, two, **arguments)


def test_proofs_are_those_of_another_implementation():
    pymerkle = pytest.importorskip("pymerkle", reason="pymerkle is a test dependency")
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    entries = [str(number).encode() for number in range(40)]
    for entry in entries:
        tree.append_entry(entry)
    for size in range(2, 41):
        leaves = LEAVES[:size]
        assert tree.get_root(size) == brute_root(leaves)
        for index in (1, size // 2 + 1, size):
            # Their paths hold the leaf itself too.
            theirs = [found for found in tree.prove_inclusion(index, size).path if found != leaves[index - 1]]
            assert theirs == inclusion(leaves, index - 1)


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_a_cover_is_the_fewest_subtrees(one, other):
    start, end = sorted((one, other))
    nodes = cover(start, end)
    position = start
    for level, index in nodes:
        assert index << level == position
        position += 1 << level
    assert position == end
    assert len(nodes) <= 2 * max(1, (end - start).bit_length())


@given(st.integers(0, 69), st.data())
def test_a_tree_folds_from_any_subtrees(size, data):
    fold, position = Fold(), 0
    while position < size:
        end = data.draw(st.integers(position + 1, size))
        for level, index in cover(position, end):
            fold.add(level, brute_root(LEAVES[index << level : (index + 1) << level]))
        position = end
    assert fold.root() == brute_root(LEAVES[:size])
    assert fold_right([]) == EMPTY_ROOT


def test_a_subtree_that_cannot_stand_there_is_refused():
    fold = Fold()
    fold.add(0, LEAVES[0])
    for level, found in ((1, LEAVES[1]), (-1, LEAVES[1]), (200, LEAVES[1]), (0, b"short")):
        with pytest.raises(LogError):
            fold.add(level, found)


@settings(max_examples=300)
@given(
    st.integers(-5, 2**70),
    st.integers(-5, 2**70),
    st.lists(st.binary(min_size=32, max_size=32), max_size=140),
)
def test_random_proofs_are_refused_with_our_error(one, other, path):
    with pytest.raises(LogError):
        verify_inclusion(LEAVES[0], one, other, path, bytes(32))
    with pytest.raises(LogError):
        verify_consistency(one, other, first_root=LEAVES[1], second_root=bytes(32), path=path)
