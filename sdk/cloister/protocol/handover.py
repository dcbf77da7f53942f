"""Hand-over of keys from one host of a deployment to another (PROTOCOL 5, SPEC section 8).

Four messages, without I/O: the *receiver* says hello, the *giver* answers with a challenge and its evidence,
the receiver claims with its own evidence, and is granted what it asked for, sealed to a key that both
pieces of evidence speak of. Each side believes nothing before the other's evidence is authentic, fresh, of
a machine among `holders`, and of a configuration like its own.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import rfc8785

from cloister import attestation, jose
from cloister.attestation import AuthenticEvidence, Environment
from cloister.attestation.binding import require_binding
from cloister.attestation.policy import lookup, same
from cloister.errors import AppraisalError, ConfigurationError, EvidenceError, OpenError
from cloister.protocol.deployment import sign_as_deployment, verify_as_deployment
from cloister.protocol.handover_messages import (
    MAX_GRANT_BYTES,
    MAX_MESSAGE_BYTES,
    VERSION,
    HandedOver,
    Hello,
    Proof,
    canonical,
    integer,
    member,
    parse,
    read_handed_over,
    read_hello,
    read_nonce,
    read_proof,
)

__all__ = ["Giving", "Receiving", "Terms", "require_holder"]

PURPOSE: Final = "cloister.handover.v1"
GRANT_TYP: Final = "cloister-handover+jwt"
SEALED_TYP: Final = "cloister-handover+jwe"
_MAY_DIFFER: Final = "version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What one side brings to a hand-over, and holds the other side to.

    Attributes:
        deployment: The deployment that is meant.
        environment: What its root key is bound to; evidence of another environment is refused.
        holders: The machines that may be given keys, as a keyset names them.
        holders_version: How often that list was changed.
        config: The configuration this side is attested with.
        trust_anchors: Roots to use instead of the pinned ones; evidence is then of the environment `test`.
    """

    deployment: str
    environment: Environment
    holders: Sequence[Mapping[str, Any]]
    holders_version: int
    config: Mapping[str, Any]
    trust_anchors: Sequence[bytes] | None = None


class Receiving:
    """The receiver's side of one hand-over.

    Args:
        terms: What this side brings.
        wants: Members of `WANTED`.
        nonce: 32 fresh random bytes.
    """

    def __init__(self, terms: Terms, *, wants: frozenset[str], nonce: bytes) -> None:
        self._terms = terms
        self._key = jose.generate_key("HPKE-10-KE", kid="peer")
        self._hello = Hello(
            deployment=terms.deployment,
            nonce=nonce,
            key=self._key.public(),
            holders_version=terms.holders_version,
            config=terms.config,
            wants=wants,
        )
        self.hello: Final = self._hello.encode()
        self._challenge = self._claim = self._nonce = b""
        self.giver: AuthenticEvidence | None = None
        """The giver's evidence, once it was accepted."""

    def challenged(self, unverified_challenge: bytes, *, now: float) -> tuple[bytes, bytes]:
        """Accept the giver; gives the statement and the nonce to make this side's own evidence of.

        Raises:
            EvidenceError: The challenge is malformed, or its evidence is not genuine or not fresh.
            AppraisalError: The giver is no holder, knows an older list, or is configured otherwise.
        """
        message = parse(unverified_challenge, MAX_MESSAGE_BYTES)
        nonce, version = read_nonce(message, "nonce"), integer(message, "holders_version")
        config = canonical(member(message, "config", dict))
        # (1) What it says of itself.
        if version < self._terms.holders_version:
            raise AppraisalError(
                "holders_version: this peer has an older list of holders (step: holders)",
                hint="it will follow within a second; if it persists, its database was rolled back",
            )
        _require_like(config, self._terms.config)
        # (2) That it is genuine, and speaks of this hand-over.
        said = _statement("giver", self._hello, nonce, version=version, config=config)
        evidence = _authentic(message, self._terms, said, nonce=self._hello.nonce, now=now)
        # (3) That it is one of those who may hold keys.
        require_holder(evidence, self._terms.holders)
        self._challenge, self._nonce, self.giver = unverified_challenge, nonce, evidence
        return (
            _statement(
                "receiver",
                self._hello,
                nonce,
                version=self._hello.holders_version,
                config=self._terms.config,
            ),
            nonce,
        )

    def claim(self, proof: Proof) -> bytes:
        """The third message, with evidence over what `challenged` gave."""
        members: dict[str, Any] = {
            "v": VERSION,
            "nonce": jose.b64url_encode(self._nonce),
            "proof": proof.members(),
        }
        self._claim = rfc8785.dumps(members)
        return self._claim

    def accept(self, unverified_grant: bytes) -> HandedOver:
        """Open what was granted.

        Raises:
            OpenError: It was sealed to another key, or in another hand-over.
            EvidenceError: It is malformed, or not signed by the deployment that is meant.
        """
        message = parse(unverified_grant, MAX_GRANT_BYTES)
        transcript = _transcript(self.hello, self._challenge, self._claim)
        token = jose.decrypt_compact(
            member(message, "sealed", str), self._key, typ=SEALED_TYP, info=transcript
        )
        try:
            text = token.decode("ascii")
        except UnicodeDecodeError:
            raise OpenError from None
        payload = verify_as_deployment(text, typ=GRANT_TYP, deployment=self._terms.deployment)
        if member(payload, "transcript", str) != jose.b64url_encode(transcript):
            raise EvidenceError("transcript: this was granted in another hand-over")
        return read_handed_over(payload)


class Giving:
    """The giver's side of one hand-over.

    Args:
        terms: What this side brings.
        unverified_hello: The receiver's first message.
        nonce: 32 fresh random bytes, never used before.

    Raises:
        EvidenceError: The hello is malformed.
        AppraisalError: It is for another deployment, from an older list of holders, or of a host that is
            configured otherwise.
    """

    def __init__(self, terms: Terms, unverified_hello: bytes, *, nonce: bytes) -> None:
        self._terms = terms
        self._nonce = nonce
        self._raw_hello = unverified_hello
        self._challenge = b""
        self._claim = b""
        self._hello = hello = read_hello(unverified_hello)
        if not hmac.compare_digest(hello.deployment.encode(), terms.deployment.encode()):
            raise AppraisalError(
                "deployment: this host serves another deployment (step: deployment)",
                hint="check the peer's address and the deployment that is pinned",
            )
        if hello.holders_version < terms.holders_version:
            raise AppraisalError(
                "holders_version: the receiver has an older list of holders (step: holders)",
                hint="it will follow within a second; if it persists, its database was rolled back",
            )
        _require_like(hello.config, terms.config)

    @property
    def wants(self) -> frozenset[str]:
        """What the receiver asks for."""
        return self._hello.wants

    @property
    def statement(self) -> tuple[bytes, bytes]:
        """The statement and the nonce to make this side's evidence of."""
        terms = self._terms
        said = _statement(
            "giver", self._hello, self._nonce, version=terms.holders_version, config=terms.config
        )
        return said, self._hello.nonce

    def challenge(self, proof: Proof) -> bytes:
        """The second message, with evidence over `statement`."""
        self._challenge = rfc8785.dumps(
            {
                "v": VERSION,
                "nonce": jose.b64url_encode(self._nonce),
                "holders_version": self._terms.holders_version,
                "config": dict(self._terms.config),
                "proof": proof.members(),
            }
        )
        return self._challenge

    def claimed(self, unverified_claim: bytes, *, now: float) -> Mapping[str, Any]:
        """Accept the receiver; gives the entry of `holders` that it is.

        Raises:
            EvidenceError: The claim is malformed, or its evidence not genuine, not fresh or of another key.
            AppraisalError: The receiver is no holder.
        """
        message, hello = parse(unverified_claim, MAX_MESSAGE_BYTES), self._hello
        said = _statement("receiver", hello, self._nonce, version=hello.holders_version, config=hello.config)
        evidence = _authentic(message, self._terms, said, nonce=self._nonce, now=now)
        holder = require_holder(evidence, self._terms.holders)
        self._claim = unverified_claim
        return holder

    def grant(self, contents: HandedOver, *, deployment_key: jose.Key) -> bytes:
        """The fourth message. Only after `claimed` did not raise.

        Raises:
            ConfigurationError: Nobody has claimed anything.
        """
        if not self._claim:
            raise ConfigurationError("nothing is granted before it was claimed")
        transcript = _transcript(self._raw_hello, self._challenge, self._claim)
        payload = {
            "v": VERSION,
            "deployment": self._terms.deployment,
            "transcript": jose.b64url_encode(transcript),
            **contents.members(),
        }
        token = sign_as_deployment(payload, deployment_key, typ=GRANT_TYP)
        sealed = jose.encrypt_compact(token.encode(), self._hello.key, typ=SEALED_TYP, info=transcript)
        return rfc8785.dumps({"v": VERSION, "sealed": sealed})


def require_holder(evidence: AuthenticEvidence, holders: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The entry of `holders` that authentic evidence is of; fails closed.

    Raises:
        AppraisalError: There is none, or the machine can be read from outside.
    """
    if evidence.debug:
        raise AppraisalError(
            "debug: this machine can be read or changed from outside (step: debug)",
            hint="start it without debug",
        )
    for holder in holders:
        if holder.get("format") == str(evidence.format) and _is_of(evidence, holder):
            return holder
    raise AppraisalError(
        "holders: this machine is not among those that may be given keys (step: holders)",
        hint="`cloister holder add` on a running host, with what `cloister host holder` prints on this one",
    )


def _is_of(evidence: AuthenticEvidence, holder: Mapping[str, Any]) -> bool:
    measurements, minimum = holder.get("measurements"), holder.get("minimum")
    if not isinstance(measurements, Mapping) or not measurements or not isinstance(minimum, Mapping):
        return False
    return all(same(lookup(evidence.claims, name), value) for name, value in measurements.items()) and all(
        _at_least(lookup(evidence.claims, name), least) for name, least in minimum.items()
    )


def _at_least(actual: Any, least: Any) -> bool:
    return type(actual) is int and type(least) is int and actual >= least


def _authentic(
    message: Mapping[str, Any], terms: Terms, said: bytes, *, nonce: bytes, now: float
) -> AuthenticEvidence:
    """The evidence of a message: genuine, of the right environment, over this statement and no other."""
    proof = read_proof(member(message, "proof", dict))
    evidence = attestation.authenticate(
        proof.evidence,
        format=attestation.format_named(proof.format),
        at=datetime.fromtimestamp(now, UTC),
        endorsements=proof.endorsements,
        collateral=proof.collateral,
        trust_anchors=terms.trust_anchors,
    )
    if evidence.environment != terms.environment:
        raise AppraisalError(
            f"environment: this deployment lives in {terms.environment}, and the peer does not "
            "(step: environment)",
            hint="a root key never leaves the environment it was born in",
        )
    require_binding(evidence, statement=said, nonce=nonce)
    return evidence


def _require_like(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Refuse a peer that is configured otherwise: whoever was appraised vouches for whoever has its keys.

    Members that one of two versions does not know are left to its measurement, which is among `holders`.
    """
    same_version = theirs.get(_MAY_DIFFER) == ours.get(_MAY_DIFFER)
    for name in sorted(theirs.keys() | ours.keys()):
        one_knows = (name in theirs) != (name in ours)
        if name == _MAY_DIFFER or (one_knows and not same_version):
            continue
        if one_knows or rfc8785.dumps(theirs[name]) != rfc8785.dumps(ours[name]):
            raise AppraisalError(
                f"config.{name}: the two hosts are configured differently (step: config)",
                hint="start every host of a deployment with the same options",
            )


def _statement(
    role: str, hello: Hello, giver_nonce: bytes, *, version: int, config: Mapping[str, Any]
) -> bytes:
    """What evidence of one side speaks of, in canonical JSON."""
    return rfc8785.dumps(
        {
            "config_digest": _digest(rfc8785.dumps(dict(config))),
            "deployment": hello.deployment,
            "giver_nonce": jose.b64url_encode(giver_nonce),
            "holders_version": version,
            "peer_key": jose.thumbprint(hello.key),
            "purpose": PURPOSE,
            "receiver_nonce": jose.b64url_encode(hello.nonce),
            "role": role,
            "wants": sorted(hello.wants),
        }
    )


def _transcript(*messages: bytes) -> bytes:
    """SHA-256 of the messages so far, each with its length before it."""
    digest = hashlib.sha256(PURPOSE.encode() + b"\x00")
    for message in messages:
        digest.update(len(message).to_bytes(8, "big") + message)
    return digest.digest()


def _digest(data: bytes) -> str:
    return jose.b64url_encode(hashlib.sha256(data).digest())
