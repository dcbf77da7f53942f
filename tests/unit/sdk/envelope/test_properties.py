"""Whatever is sealed comes back; whatever else arrives gives `OpenError`."""

import json
import os
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from cloister.envelope import DataKey, Dek, Sealed, canonical_context, open_with_cek
from cloister.envelope.sealed import _header
from cloister.errors import OpenError
from cloister.jose import b64url_decode, b64url_encode
from cloister.jose.jwe import parse_jwe_header
from cloister.secret import Secret

CEK = os.urandom(32)
DATA_KEY = DataKey(kid="ssn.1", dek=Secret(CEK), encrypted_key=os.urandom(40))
CONTEXT = {"member_id": "7"}
GOOD = str(Dek(DATA_KEY, now=0).seal("content", CONTEXT))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
CONTEXTS = st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=5)
CHARACTERS = st.sampled_from([*"ABCDEFGHghwxyz0189-_.=+/ \n", "\u00e9", "\ud800", "\0"])


@st.composite
def mutations(draw: st.DrawFn, good: str) -> str:
    """The good text with a piece replaced, removed or inserted."""
    start = draw(st.integers(0, len(good)))
    end = draw(st.integers(start, min(len(good), start + 8)))
    return good[:start] + draw(st.text(CHARACTERS, max_size=8)) + good[end:]


@given(st.binary() | JSON, st.none() | CONTEXTS)
def test_every_value_comes_back_and_has_a_sealed_shape(value: Any, context: dict[str, str] | None) -> None:
    dek = Dek(DATA_KEY, now=0)
    sealed = dek.seal(value, context)
    assert dek.open(sealed, context) == value
    assert Sealed(str(sealed)).header == sealed.header


@given(CONTEXTS)
def test_the_canonical_context_is_jcs(context: dict[str, str]) -> None:
    assert canonical_context(context) == rfc8785.dumps(dict(context))


@given(CONTEXTS, CONTEXTS)
def test_a_value_opens_under_its_own_context_alone(bound: dict[str, str], given_: dict[str, str]) -> None:
    dek = Dek(DATA_KEY, now=0)
    sealed = dek.seal("x", bound)
    if bound == given_:
        assert dek.open(sealed, given_) == "x"
    else:
        with pytest.raises(OpenError):
            dek.open(sealed, given_)


@given(mutations(GOOD))
def test_a_mutated_value_opens_only_unchanged(text: str) -> None:
    if text != GOOD:
        with pytest.raises(OpenError):
            Dek(DATA_KEY, now=0).open(text, CONTEXT)


@given(st.text() | st.text(CHARACTERS))
def test_random_text_does_not_open(text: str) -> None:
    with pytest.raises(OpenError):
        open_with_cek(text, CEK)


@given(st.binary(max_size=64), st.sampled_from(["octets", "text", "json"]))
def test_random_content_under_a_right_key_gives_a_value_or_open_error(content: bytes, cty: str) -> None:
    dek = Dek(DATA_KEY, now=0)
    sealed = dek._content.seal(cty, content, None)
    try:
        dek.open(sealed)
    except OpenError:
        assert cty != "octets"


OURS = {"alg": "A256KW", "enc": "A256GCM", "kid": "ssn.1", "typ": "cloister-value+jwe", "cty": "text"}
HEADERS = [
    json.dumps(OURS | {"kid": kid, "cty": cty} | ctx, separators=(",", ":"))
    for kid in ("ssn.1", "a-b-0.123456789")
    for cty in ("octets", "text", "json")
    for ctx in ({}, {"ctx": "6Bp-8F5XsnMbpPwOiR_3QQ"})
]


@given(st.sampled_from(HEADERS).flatmap(mutations) | st.sampled_from(HEADERS))
def test_the_short_cut_reads_a_header_as_the_json_parser_does(raw: str) -> None:
    try:
        protected = b64url_encode(raw.encode())
    except UnicodeEncodeError:
        return
    text = ".".join([protected, *GOOD.split(".")[1:]])
    try:
        slow = _header(parse_jwe_header(protected))
    except OpenError:
        with pytest.raises(OpenError):
            Sealed(text)
    else:
        assert Sealed(text).header == slow
        assert b64url_decode(protected) == raw.encode()
