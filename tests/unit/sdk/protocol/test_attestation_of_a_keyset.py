"""A client seals only to a keyset that fresh, genuine and acceptable evidence speaks of."""

from __future__ import annotations

import dataclasses
import os

import pytest

from cloister import attestation, jose
from cloister.attestation.formats import simulated
from cloister.errors import AppraisalError, EvidenceError
from cloister.protocol import (
    AttestationDocument,
    KeysetKey,
    appraise_document,
    appraise_staple,
    deployment_of,
    sign_keyset,
    staple_nonce,
    statement,
)

NOW = 1_800_000_000
DAY = 86_400
MEASUREMENT = "image-1"
CONFIG = {"root": {"environment": "simulated"}, "unseal": "file", "debug": [], "sandbox": {"missing": []}}
HOLDER = {"format": "simulated", "measurements": {"measurement": MEASUREMENT}, "minimum": {}}


@pytest.fixture(scope="module")
def deployment_key():
    return jose.generate_key("EdDSA")


@pytest.fixture(scope="module")
def request_key():
    return jose.generate_key("HPKE-10-KE").public().to_jwk()


@pytest.fixture
def make(deployment_key, request_key):
    def build(*, config=CONFIG, holders=(HOLDER,), key=deployment_key, nonce=None, measurement=MEASUREMENT):
        keyset = sign_keyset(
            keys=(KeysetKey(role="request", kid="r1", jwk=request_key, not_before=NOW, expires=NOW + DAY),),
            config=config,
            holders=holders,
            issued_at=NOW,
            expires=NOW + DAY,
            deployment_key=key,
        )
        challenge = staple_nonce(keyset) if nonce is None else nonce
        evidence = simulated.sign(
            measurement=measurement,
            statement=statement(keyset, challenge),
            nonce=challenge,
            issued_at=NOW,
        )
        return keyset, AttestationDocument(format="simulated", evidence=evidence, keyset=keyset.token)

    return build


@pytest.fixture
def policy(deployment_key):
    return attestation.AppraisalPolicy.from_mapping(
        {
            "version": 1,
            "environment": "simulated",
            "deployment": deployment_of(deployment_key),
            "tee": {"simulated": {"reference": [{"name": "one", "measurement": MEASUREMENT}]}},
            "config": {"unseal": ["file"]},
        }
    )


def test_a_good_document_gives_the_keyset_and_says_what_was_checked(make, policy):
    nonce = os.urandom(32)
    keyset, document = make(nonce=nonce)
    result = appraise_document(document, policy, nonce=nonce, now=NOW + 1)
    assert result.keyset == keyset
    assert result.environment == "simulated"
    assert "keyset signature" in result.checks
    assert result.keyset.request_key(NOW + 1).kid == "r1"


def test_the_document_survives_its_json_form(make):
    _, document = make(nonce=b"n" * 32)
    assert AttestationDocument.from_json(document.to_json()) == document


def test_another_challenge_is_refused(make, policy):
    _, document = make(nonce=b"a" * 32)
    with pytest.raises(EvidenceError):
        appraise_document(document, policy, nonce=b"b" * 32, now=NOW)


def test_a_keyset_that_the_evidence_does_not_speak_of_is_refused(make, policy):
    nonce = b"n" * 32
    _, document = make(nonce=nonce)
    other, _ = make(nonce=nonce, config={**CONFIG, "store": "other"})
    swapped = dataclasses.replace(document, keyset=other.token)
    with pytest.raises(EvidenceError):
        appraise_document(swapped, policy, nonce=nonce, now=NOW)


def test_another_deployment_is_refused(make, policy):
    nonce = b"n" * 32
    _, document = make(nonce=nonce, key=jose.generate_key("EdDSA"))
    with pytest.raises(EvidenceError, match="another deployment"):
        appraise_document(document, policy, nonce=nonce, now=NOW)


def test_an_expired_keyset_is_refused(make, policy):
    nonce = b"n" * 32
    _, document = make(nonce=nonce)
    with pytest.raises(EvidenceError, match="not valid at this time"):
        appraise_document(document, policy, nonce=nonce, now=NOW + DAY)


def test_another_image_is_refused(make, policy):
    nonce = b"n" * 32
    _, document = make(nonce=nonce, measurement="image-2")
    with pytest.raises(AppraisalError):
        appraise_document(document, policy, nonce=nonce, now=NOW)


def test_a_configuration_that_the_policy_does_not_accept_is_refused(make, policy):
    nonce = b"n" * 32
    _, document = make(nonce=nonce, config={**CONFIG, "unseal": "shamir"})
    with pytest.raises(AppraisalError, match="unseal"):
        appraise_document(document, policy, nonce=nonce, now=NOW)


def test_a_root_born_in_another_environment_is_refused(make, policy):
    nonce = b"n" * 32
    _, document = make(nonce=nonce, config={**CONFIG, "root": {"environment": "hardware"}})
    with pytest.raises(AppraisalError, match="root"):
        appraise_document(document, policy, nonce=nonce, now=NOW)


def test_a_holder_that_the_policy_does_not_accept_is_refused(make, policy):
    nonce = b"n" * 32
    stranger = {**HOLDER, "measurements": {"measurement": "image-2"}}
    _, document = make(nonce=nonce, holders=(HOLDER, stranger))
    with pytest.raises(AppraisalError, match="holders"):
        appraise_document(document, policy, nonce=nonce, now=NOW)


def test_a_changed_byte_of_the_keyset_is_refused(make, policy):
    nonce = b"n" * 32
    _, document = make(nonce=nonce)
    head, payload, signature = document.keyset.split(".")
    flipped = payload[:40] + ("A" if payload[40] != "A" else "B") + payload[41:]
    with pytest.raises(EvidenceError):
        appraise_document(
            dataclasses.replace(document, keyset=f"{head}.{flipped}.{signature}"),
            policy,
            nonce=nonce,
            now=NOW,
        )


def test_stapled_evidence_is_appraised_offline(make, policy):
    keyset, document = make()
    assert appraise_staple(document, policy, now=NOW + 10).keyset == keyset


def test_an_answer_to_a_challenge_does_not_pass_as_a_staple(make, policy):
    _, document = make(nonce=b"n" * 32)
    with pytest.raises(EvidenceError):
        appraise_staple(document, policy, now=NOW)
