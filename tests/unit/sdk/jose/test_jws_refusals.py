"""Each case changes one thing of a signature that verifies."""

import hashlib
import hmac
import json
from typing import Any, cast

import pytest

from cloister.errors import ConfigurationError, EvidenceError
from cloister.jose import (
    Alg,
    Key,
    b64url_decode,
    b64url_encode,
    generate_key,
    parse_jws_header,
    sign_compact,
    verify_compact,
)
from cloister.jose._signatures import Signature

KEY = generate_key("EdDSA", kid="signer")
TOKEN = sign_compact(b"payload", KEY, typ="t", headers={"iat": 7})
HEADER: dict[str, Any] = {"alg": "EdDSA", "kid": "signer", "typ": "t"}


def _signed(raw_header: bytes, payload: str = "cGF5bG9hZA") -> str:
    """A token whose signature is right whatever its header says."""
    signed = f"{b64url_encode(raw_header)}.{payload}"
    return f"{signed}.{b64url_encode(cast('Signature', KEY.operations).sign(signed.encode()))}"


def test_the_good_case_verifies() -> None:
    assert verify_compact(TOKEN, KEY.public(), typ="t") == b"payload"
    assert verify_compact(_signed(json.dumps(HEADER).encode()), KEY, typ="t") == b"payload"


@pytest.mark.parametrize(
    "change",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "ES256"},
        {"alg": "Ed25519"},
        {"alg": None},
        {"kid": "other"},
        {"kid": 7},
        {"typ": "T"},
        {"typ": None},
        {"typ": ["t"]},
        {"cty": 7},
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False},
        {"b64": True},
        {"zip": "DEF"},
    ],
    ids=json.dumps,
)
def test_a_header_that_says_something_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError):
        verify_compact(_signed(json.dumps(HEADER | change).encode()), KEY, typ="t")


@pytest.mark.parametrize("missing", ["alg", "typ"])
def test_a_header_that_lacks_a_member_is_refused(missing: str) -> None:
    header = {name: value for name, value in HEADER.items() if name != missing}
    with pytest.raises(EvidenceError):
        verify_compact(_signed(json.dumps(header).encode()), KEY, typ="t")


def test_a_duplicate_member_is_refused() -> None:
    raw = b'{"alg":"EdDSA","typ":"x","typ":"t"}'
    with pytest.raises(EvidenceError, match="strict JSON"):
        verify_compact(_signed(raw), KEY, typ="t")
    with pytest.raises(EvidenceError, match="strict JSON"):
        parse_jws_header(_signed(raw))


def test_a_payload_that_is_not_canonical_is_refused_though_it_is_signed() -> None:
    with pytest.raises(EvidenceError, match="base64url"):
        verify_compact(_signed(json.dumps(HEADER).encode(), "cGF5bG9hZB"), KEY, typ="t")


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("char", ["=", "\n", " ", "\u00e9", ".", "A"])
def test_a_character_more_is_refused_in_every_part(index: int, char: str) -> None:
    parts = TOKEN.split(".")
    parts[index] += char
    with pytest.raises(EvidenceError):
        verify_compact(".".join(parts), KEY, typ="t")


@pytest.mark.parametrize("alg", ["EdDSA", "ES256", "ES384", "ML-DSA-65"])
@pytest.mark.parametrize("change", ["empty", "zero", "short", "long", "flipped"])
def test_a_wrong_signature_is_refused(alg: Alg, change: str) -> None:
    key = generate_key(alg)
    protected, payload, text = sign_compact(b"payload", key, typ="t").split(".")
    good = b64url_decode(text)
    bad = {
        "empty": b"",
        "zero": bytes(len(good)),
        "short": good[:-1],
        "long": good + b"\0",
        "flipped": bytes([good[0] ^ 1]) + good[1:],
    }[change]
    with pytest.raises(EvidenceError, match="does not verify"):
        verify_compact(f"{protected}.{payload}.{b64url_encode(bad)}", key, typ="t")


def test_an_ecdsa_signature_has_one_length_though_zeros_change_no_number() -> None:
    key = generate_key("ES256")
    protected, payload, text = sign_compact(b"payload", key, typ="t").split(".")
    good = b64url_decode(text)
    for bad in (good[:32] + b"\0" + good[32:], b"\0" + good, good[:32] + bytes(32) + good[32:]):
        with pytest.raises(EvidenceError, match="does not verify"):
            verify_compact(f"{protected}.{payload}.{b64url_encode(bad)}", key, typ="t")


def test_the_public_key_is_no_hmac_secret() -> None:
    """The algorithm confusion of RFC 8725 section 2.1."""
    signed = b64url_encode(b'{"alg":"HS256","typ":"t"}') + ".cGF5bG9hZA"
    public = b64url_decode(KEY.to_jwk()["x"])
    forged = f"{signed}.{b64url_encode(hmac.digest(public, signed.encode(), hashlib.sha256))}"
    with pytest.raises(EvidenceError):
        verify_compact(forged, KEY.public(), typ="t")


def test_an_encryption_key_neither_signs_nor_verifies() -> None:
    jwk = generate_key("ES256").to_jwk()
    other = Key.from_jwk(jwk | {"alg": "HPKE-7-KE"})
    with pytest.raises(ConfigurationError):
        sign_compact(b"payload", other, typ="t")
    with pytest.raises(ConfigurationError):
        verify_compact(TOKEN, other, typ="t")


@pytest.mark.parametrize("alg", ["EdDSA", "ES256"])
def test_a_public_half_does_not_sign(alg: Alg) -> None:
    with pytest.raises(ConfigurationError, match="public half"):
        sign_compact(b"payload", generate_key(alg).public(), typ="t")


@pytest.mark.parametrize("name", ["alg", "kid", "typ", "crit", "b64"])
def test_extra_headers_cannot_name_a_reserved_member(name: str) -> None:
    with pytest.raises(ConfigurationError, match="reserved"):
        sign_compact(b"payload", KEY, typ="t", headers={name: "x"})
