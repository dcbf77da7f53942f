"""A client keeps the last tree head, and every later one has to continue it (PROTOCOL 8)."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister import jose
from cloister.errors import CloisterError, LogError
from cloister.receipts import HeadKeeper, verify_head
from cloister.receipts.head import HEAD_TYP, TreeHead
from support.log_double import MemoryLog


def leaf(number: int) -> bytes:
    return hashlib.sha256(bytes([number])).digest()


@pytest.fixture
def log() -> MemoryLog:
    log = MemoryLog()
    log.grow(*map(leaf, range(7)))
    return log


def accept(keeper: HeadKeeper, log: MemoryLog, head: TreeHead | None = None) -> None:
    base = keeper.kept(log.keyset)
    keeper.accept(log.reply(base.size if base else 0, head), keyset=log.keyset, base=base)


def test_a_growing_log_is_followed(log):
    keeper = HeadKeeper()
    for number in range(20):
        accept(keeper, log)
        assert keeper.kept(log.keyset).size == len(log.leaves)
        log.grow(*map(leaf, range(number)))
    assert keeper.not_checked == (
        "log: no witness is named; a split view between clients that never talk is not detected",
        "log: no head of this deployment was known before this client's first reply",
    )


def test_the_same_head_again_needs_no_proof(log):
    keeper = HeadKeeper()
    accept(keeper, log)
    base = keeper.kept(log.keyset)
    keeper.accept({"result": {}, "log": {"head": base.token}}, keyset=log.keyset, base=base)


def test_a_log_rolled_back_is_refused(log):
    keeper = HeadKeeper()
    accept(keeper, log)
    with pytest.raises(LogError, match="rolled back"):
        accept(keeper, log, log.head(5, time=log.time + 1))
    assert keeper.kept(log.keyset).size == 7


def test_a_fork_of_the_same_size_is_refused(log):
    keeper = HeadKeeper()
    accept(keeper, log)
    fork = MemoryLog(like=log)
    fork.leaves[3] = leaf(99)
    fork.grow()
    with pytest.raises(LogError, match="forked"):
        accept(keeper, fork)


def test_a_fork_that_has_grown_is_refused(log):
    keeper = HeadKeeper()
    fork = MemoryLog(like=log)
    log.grow(leaf(50))
    accept(keeper, log)
    fork.grow(leaf(60), leaf(61))
    with pytest.raises(LogError, match="does not continue"):
        accept(keeper, fork)


def test_a_larger_head_without_its_proof_is_refused(log):
    keeper = HeadKeeper()
    accept(keeper, log)
    base = keeper.kept(log.keyset)
    head = log.grow(leaf(8))
    for proof in ("", None, 7, "AA", "=", jose.b64url_encode(bytes(32)), jose.b64url_encode(bytes(32 * 200))):
        reply = {"result": {}, "log": {"head": head.token, "consistency": proof}}
        with pytest.raises(LogError):
            keeper.accept(reply, keyset=log.keyset, base=base)


def test_a_larger_head_that_is_older_is_refused(log):
    keeper = HeadKeeper()
    accept(keeper, log)
    log.leaves.append(leaf(8))
    with pytest.raises(LogError, match="rolled back"):
        accept(keeper, log, log.head(time=log.time - 1))


def test_a_replica_a_little_behind_is_not_taken_for_a_rollback(log):
    keeper = HeadKeeper()
    old = log.head()
    log.grow(leaf(8))
    accept(keeper, log)
    accept(keeper, log, old)
    assert keeper.kept(log.keyset).size == 8
    assert any("older head" in line for line in keeper.not_checked)


def test_a_head_far_behind_is_refused(log):
    keeper = HeadKeeper()
    log.time += 700_000
    accept(keeper, log)
    with pytest.raises(LogError, match="older"):
        accept(keeper, log, log.head(3, time=log.time - 600_001))


def test_two_replies_at_once_are_held_against_the_head_before_both(log):
    keeper = HeadKeeper()
    accept(keeper, log)
    base = keeper.kept(log.keyset)
    one = log.reply(base.size, log.grow(leaf(8)))
    two = log.reply(base.size, log.grow(leaf(9)))
    keeper.accept(two, keyset=log.keyset, base=base)
    keeper.accept(one, keyset=log.keyset, base=base)
    assert keeper.kept(log.keyset).size == 9


def test_two_replies_at_once_from_two_sides_of_a_fork_are_refused(log):
    keeper = HeadKeeper()
    accept(keeper, log)
    base = keeper.kept(log.keyset)
    fork = MemoryLog(like=log)
    one = log.reply(base.size, log.grow(leaf(8)))
    two = fork.reply(base.size, fork.grow(leaf(9)))
    keeper.accept(one, keyset=log.keyset, base=base)
    with pytest.raises(LogError, match="forked"):
        keeper.accept(two, keyset=log.keyset, base=base)


@pytest.mark.parametrize("part", [None, [], {}, {"head": 7}, {"head": "a.b.c"}, {"head": "x" * 5000}])
def test_a_result_without_a_head_is_refused(log, part):
    reply = {"result": {}} if part is None else {"result": {}, "log": part}
    with pytest.raises(LogError):
        HeadKeeper().accept(reply, keyset=log.keyset, base=None)


def test_an_error_to_somebody_unknown_brings_no_head(log):
    HeadKeeper().accept({"error": {"code": "identity"}}, keyset=log.keyset, base=None)


def test_a_head_by_another_deployment_is_refused(log):
    with pytest.raises(LogError):
        accept(HeadKeeper(), log, MemoryLog().head())


def test_a_head_that_names_another_deployment_is_refused(log):
    other = MemoryLog(like=log)
    claims = json.loads(jose.b64url_decode(log.head().token.split(".")[1]))
    claims["deployment"] = MemoryLog().keyset.deployment
    token = jose.sign_compact(json.dumps(claims).encode(), other.key, typ=HEAD_TYP)
    with pytest.raises(LogError, match="another deployment"):
        verify_head(token, keyset=log.keyset)


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"size": -1},
        {"size": True},
        {"size": "7"},
        {"size": 2**63},
        {"time": 1.5},
        {"root": "AA"},
        {"root": "="},
        {"root": None},
        {"previous": None},
        {"deployment": None},
    ],
    ids=str,
)
def test_a_signed_head_with_one_member_malformed_is_refused(log, change):
    claims = json.loads(jose.b64url_decode(log.head().token.split(".")[1])) | change
    token = jose.sign_compact(json.dumps(claims).encode(), log.key, typ=HEAD_TYP)
    with pytest.raises(LogError):
        verify_head(token, keyset=log.keyset)


def test_a_statement_of_another_kind_is_no_head(log):
    claims = jose.b64url_decode(log.head().token.split(".")[1])
    token = jose.sign_compact(claims, log.key, typ="cloister-receipt+jwt")
    with pytest.raises(LogError):
        verify_head(token, keyset=log.keyset)


def test_a_host_without_a_log_is_said_to_be_one(log):
    from cloister.protocol import sign_keyset

    request_only = sign_keyset(
        keys=(log.keyset.keys[0].__class__(role="request", kid="r", jwk={}, not_before=0, expires=1),),
        config={},
        holders=(),
        issued_at=0,
        expires=1,
        deployment_key=log.deployment_key,
    )
    keeper = HeadKeeper()
    keeper.accept({"result": {}}, keyset=request_only, base=None)
    assert any("names no log key" in line for line in keeper.not_checked)


class Store:
    def __init__(self) -> None:
        self.tokens: dict[str, str] = {}

    def load(self, deployment):
        return self.tokens.get(deployment)

    def save(self, head):
        self.tokens[head.deployment] = head.token


def test_a_head_kept_between_runs_finds_a_rollback_across_them(log):
    store = Store()
    accept(HeadKeeper(store), log)
    accept(HeadKeeper(store), log)
    with pytest.raises(LogError, match="rolled back"):
        accept(HeadKeeper(store), log, log.head(5, time=log.time + 1))


def test_a_kept_head_that_is_not_of_this_log_is_refused(log):
    store = Store()
    store.tokens[log.keyset.deployment] = MemoryLog().head().token
    with pytest.raises(LogError):
        accept(HeadKeeper(store), log)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
LOG = MemoryLog()
LOG.grow(*map(leaf, range(9)))


@given(ANYTHING | st.fixed_dictionaries({"head": st.just(LOG.head().token), "consistency": ANYTHING}))
def test_whatever_a_reply_says_of_the_log_only_our_errors_come_out(part):
    keeper = HeadKeeper()
    accept(keeper, LOG, LOG.head(4, time=LOG.time - 1))
    try:
        keeper.accept({"result": {}, "log": part}, keyset=LOG.keyset, base=keeper.kept(LOG.keyset))
    except CloisterError:
        return
    raise AssertionError("nothing of this proves the log")


@given(st.data())
def test_a_mutated_head_is_refused_with_our_error(data):
    token = LOG.head().token
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda character: character != token[place]))
    with pytest.raises(LogError):
        verify_head(token[:place] + other + token[place + 1 :], keyset=LOG.keyset)
