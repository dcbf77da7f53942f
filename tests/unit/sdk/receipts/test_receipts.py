"""Receipts prove which code answered, and give away nothing that could be guessed."""

from __future__ import annotations

import hashlib
import itertools
import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from cloister import jose
from cloister.errors import CloisterError, EvidenceError
from cloister.protocol import KeysetKey, sign_keyset
from cloister.receipts import Receipt, issue_receipt, verify_receipt
from cloister.receipts.receipt import PROFILE

NOW = 1_800_000_000


@pytest.fixture(scope="module")
def receipt_key():
    return jose.generate_key("EdDSA", kid="receipt-1")


@pytest.fixture(scope="module")
def keyset(receipt_key):
    return make_keyset(receipt_key)


def make_keyset(receipt_key, *, expires=NOW + 100):
    return sign_keyset(
        keys=(
            KeysetKey(
                role="receipt",
                kid="receipt-1",
                jwk=receipt_key.public().to_jwk(),
                not_before=NOW - 60,
                expires=expires,
            ),
        ),
        config={},
        holders=(),
        issued_at=NOW,
        expires=NOW + 100,
        deployment_key=jose.generate_key("EdDSA"),
    )


def issue(keyset, key, /, *, result=True, **changes):
    claims = {
        "eat_profile": PROFILE,
        "deployment": keyset.deployment,
        "keyset": keyset.digest,
        "iat": NOW,
        "function": "f",
    }
    return issue_receipt({**claims, **changes}, {"result": result}, receipt_id="0123", key=key)


def payload(receipt):
    return json.loads(jose.b64url_decode(receipt.token.split(".")[1]))


def digest(salt, value):
    disclosure = jose.b64url_encode(rfc8785.dumps([salt, "result", value]))
    return jose.b64url_encode(hashlib.sha256(disclosure.encode()).digest())


def test_a_receipt_verifies_with_what_is_disclosed(keyset, receipt_key):
    receipt = issue(keyset, receipt_key)
    verified = verify_receipt(receipt.token, keyset=keyset, disclosures=receipt.disclosures)
    assert verified.claims["function"] == "f"
    assert verified.disclosed == {"result": True}
    assert verify_receipt(receipt.token, keyset=keyset).disclosed == {}


def test_a_boolean_cannot_be_guessed_from_a_receipt(keyset, receipt_key):
    receipt = issue(keyset, receipt_key, result=True)
    committed = payload(receipt)["_sd"]
    assert not {digest("", value) for value in (True, False)} & set(committed)
    # With the salt, which only the sealed reply carries, the guess is checked at once.
    salt = json.loads(jose.b64url_decode(receipt.disclosures[0]))[0]
    assert digest(salt, True) in committed
    assert digest(salt, False) not in committed


def test_a_pin_cannot_be_guessed_from_a_receipt(keyset, receipt_key):
    receipt = issue(keyset, receipt_key, result="4711")
    pins = ["".join(digits) for digits in itertools.product("0123456789", repeat=4)]
    committed = set(payload(receipt)["_sd"])
    assert not {digest("", pin) for pin in pins} & committed
    salt = json.loads(jose.b64url_decode(receipt.disclosures[0]))[0]
    assert [pin for pin in pins if digest(salt, pin) in committed] == ["4711"]


def test_the_same_answer_twice_looks_different(keyset, receipt_key):
    one, two = issue(keyset, receipt_key), issue(keyset, receipt_key)
    assert payload(one)["_sd"] != payload(two)["_sd"]


def test_a_disclosure_of_another_receipt_is_refused(keyset, receipt_key):
    one, two = issue(keyset, receipt_key), issue(keyset, receipt_key)
    with pytest.raises(EvidenceError, match="disclosure"):
        verify_receipt(one.token, keyset=keyset, disclosures=two.disclosures)


def test_another_profile_is_refused(keyset, receipt_key):
    with pytest.raises(EvidenceError, match="profile"):
        verify_receipt(issue(keyset, receipt_key, eat_profile="urn:x").token, keyset=keyset)


def test_another_key_is_refused(keyset):
    receipt = issue(keyset, jose.generate_key("EdDSA", kid="receipt-1"))
    with pytest.raises(EvidenceError):
        verify_receipt(receipt.token, keyset=keyset)


def test_another_keyset_is_refused(keyset, receipt_key):
    with pytest.raises(EvidenceError, match="another keyset"):
        verify_receipt(issue(keyset, receipt_key, keyset="x").token, keyset=keyset)
    with pytest.raises(EvidenceError, match="another keyset"):
        verify_receipt(issue(keyset, receipt_key, deployment="x").token, keyset=keyset)


@pytest.mark.parametrize("issued_at", [NOW - 1000, NOW + 1000, "now", None, True])
def test_a_receipt_outside_the_life_of_its_key_is_refused(keyset, receipt_key, issued_at):
    with pytest.raises(EvidenceError, match="life"):
        verify_receipt(issue(keyset, receipt_key, iat=issued_at).token, keyset=keyset)


def test_a_receipt_shows_no_disclosure_in_its_repr(keyset, receipt_key):
    receipt = issue(keyset, receipt_key)
    assert receipt.disclosures[0] not in repr(receipt)
    assert Receipt.from_json(receipt.to_json()) == receipt


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_random_text_raises_only_our_errors(text):
    key = jose.generate_key("EdDSA", kid="receipt-1")
    with pytest.raises(CloisterError):
        verify_receipt(text, keyset=make_keyset(key))
