"""Keys go from a host to a genuine peer of the same deployment, and to nobody else."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister import jose
from cloister.attestation.formats import simulated
from cloister.errors import AppraisalError, AttestationError, CloisterError, EvidenceError, OpenError
from cloister.protocol.deployment import deployment_of
from cloister.protocol.handover import Giving, Receiving, Terms
from cloister.protocol.handover_messages import MAX_MESSAGE_BYTES, HandedKey, HandedOver, Proof, claimed_nonce

NOW = 1_800_000_000.0
KEY = jose.generate_key("EdDSA")
OTHER = jose.generate_key("EdDSA")
REQUEST = jose.generate_key("HPKE-10-KE", kid="request-1")
CONFIG: Mapping[str, Any] = {
    "version": "1",
    "debug": [],
    "unseal": "pkcs11",
    "sandbox": {"level": "namespaces"},
}
CONTENTS = HandedOver(
    keys=(HandedKey(kid="request-1", jwk=REQUEST.to_jwk(), not_before=int(NOW), expires=int(NOW) + 60),),
    counters={"system": 7, "acme": 1},
    root={"key": "k"},
)


def holder(image: str, **minimum: int) -> Mapping[str, Any]:
    return {"format": "simulated", "measurements": {"measurement": image}, "minimum": minimum}


TERMS = Terms(
    deployment=deployment_of(KEY),
    environment="simulated",
    holders=(holder("image-1"), holder("image-2")),
    holders_version=3,
    config=CONFIG,
)


class Machine:
    """What makes evidence; each member is something an attacker may choose."""

    def __init__(self, image: str = "image-1", *, debug: bool = False, at: float = NOW) -> None:
        self.image, self.debug, self.at = image, debug, at

    def prove(self, statement: bytes, nonce: bytes) -> Proof:
        evidence = simulated.sign(
            measurement=self.image, statement=statement, nonce=nonce, issued_at=int(self.at), debug=self.debug
        )
        return Proof(format="simulated", evidence=evidence)


def hand_over(
    *,
    giver: Terms = TERMS,
    receiver: Terms = TERMS,
    gives: Machine | None = None,
    takes: Machine | None = None,
    key: jose.Key = KEY,
    wants: frozenset[str] = frozenset({"request-keys", "root"}),
) -> HandedOver:
    side = Receiving(receiver, wants=wants, nonce=os.urandom(32))
    giving = Giving(giver, side.hello, nonce=os.urandom(32))
    challenge = giving.challenge((gives or Machine()).prove(*giving.statement))
    claim = side.claim((takes or Machine("image-2")).prove(*side.challenged(challenge, now=NOW)))
    giving.claimed(claim, now=NOW)
    return side.accept(giving.grant(CONTENTS, deployment_key=key))


def test_a_holder_is_given_what_was_meant_for_it() -> None:
    assert hand_over() == CONTENTS


def test_a_newer_version_may_know_more_of_its_configuration() -> None:
    newer = replace(TERMS, config={**CONFIG, "version": "2", "post": "quantum"})
    assert hand_over(receiver=newer) == hand_over(giver=newer) == CONTENTS


@pytest.mark.parametrize("member", ["debug", "unseal", "sandbox"])
@pytest.mark.parametrize("side", ["giver", "receiver"])
def test_a_host_that_is_configured_otherwise_is_refused(member: str, side: str) -> None:
    weaker = replace(TERMS, config={**CONFIG, member: ["else"], "version": "2"})
    with pytest.raises(AppraisalError, match=rf"config\.{member}"):
        hand_over(**{side: weaker})  # type: ignore[arg-type]


def test_a_configuration_with_more_in_it_is_refused_from_the_same_version() -> None:
    with pytest.raises(AppraisalError, match=r"config\.egress"):
        hand_over(receiver=replace(TERMS, config={**CONFIG, "egress": "any"}))


@pytest.mark.parametrize("sides", [{"takes": Machine("image-9")}, {"gives": Machine("image-9")}])
def test_a_machine_of_another_measurement_is_refused(sides: Any) -> None:
    with pytest.raises(AppraisalError, match="holders: this machine"):
        hand_over(**sides)


@pytest.mark.parametrize("sides", [{"takes": Machine(debug=True)}, {"gives": Machine(debug=True)}])
def test_a_machine_that_can_be_read_is_refused(sides: Any) -> None:
    with pytest.raises(AppraisalError, match="debug"):
        hand_over(**sides)


@pytest.mark.parametrize("side", ["giver", "receiver"])
def test_a_machine_below_the_minimum_is_refused(side: str) -> None:
    demanding = replace(TERMS, holders=(holder("image-1", svn=2), holder("image-2", svn=2)))
    with pytest.raises(AppraisalError, match="holders: this machine"):
        hand_over(**{side: demanding})  # type: ignore[arg-type]


def test_an_entry_without_measurements_lets_nobody_in() -> None:
    empty = {"format": "simulated", "measurements": {}, "minimum": {}}
    with pytest.raises(AppraisalError, match="holders: this machine"):
        hand_over(giver=replace(TERMS, holders=(empty,)))


@pytest.mark.parametrize("side", ["giver", "receiver"])
def test_an_older_list_of_holders_is_refused(side: str) -> None:
    with pytest.raises(AppraisalError, match="holders_version"):
        hand_over(**{side: replace(TERMS, holders_version=2)})  # type: ignore[arg-type]


@pytest.mark.parametrize("side", ["giver", "receiver"])
def test_evidence_of_another_environment_is_refused(side: str) -> None:
    with pytest.raises(AppraisalError, match="environment"):
        hand_over(**{side: replace(TERMS, environment="hardware")})  # type: ignore[arg-type]


def test_a_giver_of_another_deployment_refuses() -> None:
    with pytest.raises(AppraisalError, match="deployment"):
        hand_over(giver=replace(TERMS, deployment=deployment_of(OTHER)))


def test_what_another_deployment_signed_is_refused() -> None:
    with pytest.raises(EvidenceError, match="another deployment"):
        hand_over(key=OTHER)


class Between:
    """Somebody who carries the messages of two hand-overs and can change each."""

    def __init__(self) -> None:
        self.side = Receiving(TERMS, wants=frozenset({"request-keys"}), nonce=os.urandom(32))
        self.giving = Giving(TERMS, self.side.hello, nonce=os.urandom(32))
        self.challenge = self.giving.challenge(Machine().prove(*self.giving.statement))

    def claim(self) -> bytes:
        return self.side.claim(Machine("image-2").prove(*self.side.challenged(self.challenge, now=NOW)))

    def grant(self) -> bytes:
        self.giving.claimed(self.claim(), now=NOW)
        return self.giving.grant(CONTENTS, deployment_key=KEY)


def test_a_challenge_of_another_hand_over_is_refused() -> None:
    with pytest.raises(EvidenceError, match="another challenge"):
        Between().side.challenged(Between().challenge, now=NOW)


def test_a_claim_of_another_hand_over_is_refused() -> None:
    with pytest.raises(EvidenceError, match="another challenge"):
        Between().giving.claimed(Between().claim(), now=NOW)


def test_a_grant_of_another_hand_over_does_not_open() -> None:
    one = Between()
    one.claim()
    with pytest.raises(OpenError):
        one.side.accept(Between().grant())


def test_a_grant_does_not_open_where_the_claim_was_another() -> None:
    """The transcript is under the seal: whoever was granted something else than it asked for notices."""
    one = Between()
    grant = one.grant()
    one.claim()  # simulated evidence is deterministic in all but what it speaks of
    one.side._claim += b" "
    with pytest.raises(OpenError):
        one.side.accept(grant)


def test_a_key_that_was_put_in_on_the_way_is_not_sealed_to() -> None:
    """The evidence speaks of the key: somebody else's key with the receiver's evidence is refused."""
    side = Receiving(TERMS, wants=frozenset({"root"}), nonce=os.urandom(32))
    hello = json.loads(side.hello)
    hello["key"] = jose.generate_key("HPKE-10-KE", kid="peer").public().to_jwk()
    giving = Giving(TERMS, json.dumps(hello).encode(), nonce=os.urandom(32))
    challenge = giving.challenge(Machine().prove(*giving.statement))
    with pytest.raises(EvidenceError, match="speaks of other keys"):
        side.challenged(challenge, now=NOW)
    with pytest.raises(EvidenceError, match="speaks of other keys"):
        giving.claimed(side.claim(Machine("image-2").prove(*Between().giving.statement)), now=NOW)


@pytest.mark.parametrize(
    "change", [{"wants": ["root"]}, {"holders_version": 9}, {"config": {**CONFIG, "version": "9"}}]
)
def test_what_a_hello_says_is_what_the_evidence_speaks_of(change: Mapping[str, Any]) -> None:
    side = Receiving(TERMS, wants=frozenset({"request-keys"}), nonce=os.urandom(32))
    giving = Giving(TERMS, json.dumps({**json.loads(side.hello), **change}).encode(), nonce=os.urandom(32))
    challenge = giving.challenge(Machine().prove(*giving.statement))
    with pytest.raises(EvidenceError, match="speaks of other keys"):
        giving.claimed(side.claim(Machine("image-2").prove(*side.challenged(challenge, now=NOW))), now=NOW)


def test_nothing_is_granted_before_it_was_claimed() -> None:
    with pytest.raises(CloisterError, match="before it was claimed"):
        Between().giving.grant(CONTENTS, deployment_key=KEY)


def test_old_evidence_is_refused() -> None:
    with pytest.raises(EvidenceError):
        hand_over(takes=Machine("image-2", at=NOW - 100_000))


def test_a_truncated_transcript_is_refused_at_every_step() -> None:
    one = Between()
    for short in (b"", b"{}", one.challenge[:-1], one.challenge[: len(one.challenge) // 2]):
        with pytest.raises(AttestationError):
            one.side.challenged(short, now=NOW)
    claim = one.claim()
    for short in (b"", claim[:-1], claim[: len(claim) // 2]):
        with pytest.raises(AttestationError):
            one.giving.claimed(short, now=NOW)
    grant = one.grant()
    members = json.loads(grant)
    for short in (b"", grant[:-2], json.dumps({**members, "sealed": members["sealed"][:-8]}).encode()):
        with pytest.raises((AttestationError, OpenError)):
            one.side.accept(short)


def test_messages_have_limits() -> None:
    with pytest.raises(EvidenceError, match="too large"):
        Giving(TERMS, b" " * (MAX_MESSAGE_BYTES + 1), nonce=bytes(32))


def test_nothing_secret_shows_in_a_repr() -> None:
    handed = hand_over()
    assert str(REQUEST.to_jwk()["priv"]) not in repr(handed)
    assert "'k'" not in repr(handed)


HELLO = Between().side.hello
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def mutated(draw: st.DrawFn, message: bytes) -> bytes:
    """Random bytes, the message with some bytes changed, or with one member replaced."""
    kind = draw(st.integers(0, 2))
    if kind == 0:
        return draw(st.binary(max_size=400))
    if kind == 1:
        at = draw(st.integers(0, len(message) - 1))
        return message[:at] + draw(st.binary(max_size=4)) + message[at + 1 :]
    members = json.loads(message)
    members[draw(st.sampled_from(sorted(members)))] = draw(JSON)
    return json.dumps(members).encode()


@given(mutated(HELLO))
def test_whatever_a_hello_is_only_our_errors_come_out(raw: bytes) -> None:
    with contextlib.suppress(AttestationError):
        Giving(TERMS, raw, nonce=bytes(32))


ONE = Between()
CLAIM = ONE.claim()
SEALED = ONE.grant()


@given(mutated(ONE.challenge))
def test_whatever_a_challenge_is_only_our_errors_come_out(raw: bytes) -> None:
    with contextlib.suppress(AttestationError):
        ONE.side.challenged(raw, now=NOW)


@given(mutated(CLAIM))
def test_whatever_a_claim_is_only_our_errors_come_out(raw: bytes) -> None:
    for read in (claimed_nonce, lambda claim: ONE.giving.claimed(claim, now=NOW)):
        with contextlib.suppress(AttestationError):
            read(raw)


@given(mutated(SEALED))
def test_whatever_a_grant_is_only_our_errors_come_out(raw: bytes) -> None:
    with contextlib.suppress(AttestationError, OpenError):
        ONE.side.accept(raw)


@given(st.dictionaries(st.sampled_from(["keys", "counters", "root", "v", "transcript"]), JSON))
def test_whatever_a_deployment_signs_only_our_errors_come_out(members: Mapping[str, Any]) -> None:
    from cloister.protocol.handover_messages import read_handed_over

    with contextlib.suppress(EvidenceError):
        read_handed_over(members)
