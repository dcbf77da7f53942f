"""Whatever bytes arrive: only our errors come out."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import ConfigurationError, EvidenceError, OpenError
from cloister.jose import (
    Key,
    b64url_decode,
    b64url_encode,
    decrypt_compact,
    encrypt_compact,
    generate_key,
    parse_jws_header,
    sign_compact,
    verify_compact,
)
from cloister.jose.strict_json import load

WRAP, HPKE, SIGN = generate_key("A256KW"), generate_key("HPKE-7-KE"), generate_key("EdDSA")
TOKENS = {key: encrypt_compact(b"content", key, typ="t") for key in (WRAP, HPKE)}
SIGNED = sign_compact(b"payload", SIGN, typ="t")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CHARACTERS = st.sampled_from([*"ABCDEFGHghwxyz0189-_.=+/ \n", "\u00e9", "\ud800", "\0"])


@st.composite
def mutations(draw: st.DrawFn, good: str) -> str:
    """The good text with a piece replaced, removed or inserted."""
    start = draw(st.integers(0, len(good)))
    end = draw(st.integers(start, min(len(good), start + 8)))
    return good[:start] + draw(st.text(CHARACTERS, max_size=8)) + good[end:]


@given(st.text() | st.text(CHARACTERS))
def test_random_text_is_no_token(text: str) -> None:
    with pytest.raises(OpenError):
        decrypt_compact(text, WRAP)
    with pytest.raises(EvidenceError):
        verify_compact(text, SIGN, typ="t")
    with pytest.raises(EvidenceError):
        parse_jws_header(text)


@given(st.dictionaries(st.sampled_from(["alg", "enc", "kid", "typ", "cty", "ek", "zip", "crit", "x"]), JSON))
def test_random_headers_open_nothing(header: dict[str, Any]) -> None:
    raw = json.dumps(header).encode()
    for key in (WRAP, HPKE):
        _, *rest = TOKENS[key].split(".")
        with pytest.raises(OpenError):
            decrypt_compact(".".join([b64url_encode(raw), *rest]), key, typ="t")


@given(mutations(TOKENS[WRAP]))
def test_a_mutated_token_opens_only_unchanged(text: str) -> None:
    if text != TOKENS[WRAP]:
        with pytest.raises(OpenError):
            decrypt_compact(text, WRAP, typ="t")


@given(mutations(TOKENS[HPKE]))
def test_a_mutated_hpke_token_opens_only_unchanged(text: str) -> None:
    if text != TOKENS[HPKE]:
        with pytest.raises(OpenError):
            decrypt_compact(text, HPKE, typ="t")


@given(mutations(SIGNED))
def test_a_mutated_signature_verifies_only_unchanged(text: str) -> None:
    if text != SIGNED:
        with pytest.raises(EvidenceError):
            verify_compact(text, SIGN, typ="t")


MEMBERS = st.sampled_from(["kty", "alg", "kid", "crv", "x", "y", "d", "k", "pub", "priv", "use", "key_ops"])
NAMES = st.sampled_from(
    ["oct", "EC", "OKP", "AKP", "P-256", "Ed25519", "A256KW", "HPKE-10-KE", "ES256", "EdDSA"]
)


@given(st.dictionaries(MEMBERS, JSON | NAMES | st.binary(min_size=32, max_size=32).map(b64url_encode)))
def test_a_random_jwk_is_a_key_or_a_configuration_error(jwk: dict[str, Any]) -> None:
    try:
        key = Key.from_jwk(jwk)
    except ConfigurationError:
        return
    assert Key.from_jwk(key.to_jwk()).to_jwk() == key.to_jwk()


@given(st.binary())
def test_base64url_is_that_of_the_standard_library_without_padding(data: bytes) -> None:
    text = b64url_encode(data)
    assert text == base64.urlsafe_b64encode(data).decode().rstrip("=")
    assert b64url_decode(text) == data


@given(st.text(CHARACTERS) | st.text())
def test_what_decodes_has_exactly_one_encoding(text: str) -> None:
    try:
        data = b64url_decode(text)
    except ValueError:
        return
    assert b64url_encode(data) == text


@given(st.binary() | st.text(st.sampled_from('{}[]",:0123456789eE.-tfnull \\u')).map(str.encode))
def test_strict_json_raises_value_errors_alone(raw: bytes) -> None:
    try:
        load(raw)
    except ValueError:
        return
