"""Tokens and key sets: each negative test changes one thing of a token that is accepted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jwcrypto.jwk import JWK

from cloister.errors import ConfigurationError, IdentityError
from cloister.jose import b64url_encode
from cloister_host.identity.jwks import ALGORITHMS, KeySet
from cloister_host.identity.tokens import UnverifiedToken, check_claims
from support.token_issuer import TokenIssuer, generate

NOW = 1_800_000_000
AUDIENCE = "cloister:deployment"
CLAIMS: dict[str, Any] = {"sub": "app", "aud": AUDIENCE, "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 300}


def keys_of(issuer: TokenIssuer) -> KeySet:
    return KeySet.parse(json.dumps(issuer.jwks()).encode())


def verify(token: str, keys: KeySet, *, algorithms: Any = ALGORITHMS) -> Any:
    claims = UnverifiedToken.parse(token).verify(keys, algorithms=algorithms)
    check_claims(claims, audience=AUDIENCE, now=NOW, max_lifetime_seconds=3600)
    return claims


@pytest.fixture(scope="module", params=ALGORITHMS)
def any_issuer(request: pytest.FixtureRequest) -> TokenIssuer:
    return TokenIssuer(algorithm=request.param)


@pytest.fixture(scope="module")
def issuer() -> TokenIssuer:
    return TokenIssuer()


def test_tokens_by_another_implementation_are_verified(any_issuer: TokenIssuer) -> None:
    assert verify(any_issuer.token(CLAIMS), keys_of(any_issuer))["sub"] == "app"


def test_a_changed_claim_or_signature_is_refused(any_issuer: TokenIssuer) -> None:
    header, _claims, signature = any_issuer.token(CLAIMS).split(".")
    other = b64url_encode(json.dumps({"iss": any_issuer.url, **CLAIMS, "sub": "admin"}).encode())
    with pytest.raises(IdentityError, match="not signed"):
        verify(f"{header}.{other}.{signature}", keys_of(any_issuer))


def test_a_token_of_another_key_of_the_same_name_is_refused(any_issuer: TokenIssuer) -> None:
    stranger = generate(any_issuer.algorithm)
    with pytest.raises(IdentityError, match="not signed"):
        verify(any_issuer.token(CLAIMS, key=stranger), keys_of(any_issuer))


def test_an_algorithm_the_tenant_did_not_allow_is_refused(any_issuer: TokenIssuer) -> None:
    others = [name for name in ALGORITHMS if name != any_issuer.algorithm]
    with pytest.raises(IdentityError, match="not one of"):
        verify(any_issuer.token(CLAIMS), keys_of(any_issuer), algorithms=others)


def test_a_mac_with_the_public_key_is_refused() -> None:
    """Algorithm confusion (RFC 8725 section 2.1)."""
    issuer = TokenIssuer(algorithm="RS256")
    pem = issuer.keys[0].export_to_pem()
    mac = JWK(kty="oct", k=b64url_encode(pem), kid="k1")
    with pytest.raises(IdentityError, match="algorithm"):
        verify(issuer.token(CLAIMS, header={"alg": "HS256"}, key=mac), keys_of(issuer))


@pytest.mark.parametrize("alg", ["none", "None", "", "HS256", "RS1", None, 7, ["ES256"]])
def test_no_other_algorithm_is_accepted(issuer: TokenIssuer, alg: Any) -> None:
    _header, claims, _signature = issuer.token(CLAIMS).split(".")
    header = b64url_encode(json.dumps({"alg": alg, "kid": "k1"}).encode())
    for signature in ("", "AAAA"):
        with pytest.raises(IdentityError):
            verify(f"{header}.{claims}.{signature}", keys_of(issuer))


@pytest.mark.parametrize(("algorithm", "other"), [("RS256", "PS256"), ("PS256", "RS256")])
def test_a_key_that_names_its_algorithm_verifies_no_other(algorithm: str, other: str) -> None:
    issuer = TokenIssuer(algorithm=algorithm)
    named = {"keys": [{**entry, "alg": other} for entry in issuer.jwks()["keys"]]}
    with pytest.raises(IdentityError, match="not signed"):
        verify(issuer.token(CLAIMS), KeySet.parse(json.dumps(named).encode()))


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": {"kty": "EC"}},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/chain"},
        {"x5c": ["MIIB"]},
        {"crit": ["exp"]},
        {"b64": False},
        {"zip": "DEF"},
        {"typ": "cloister-receipt+jwt"},
        {"typ": 7},
        {"kid": None},
        {"kid": "k" * 300},
        {"kid": 1},
    ],
    ids=lambda header: next(iter(header)) + str(next(iter(header.values())))[:12],
)
def test_a_header_that_could_choose_the_key_or_the_processing_is_refused(
    issuer: TokenIssuer, header: dict[str, Any]
) -> None:
    first = {"alg": "ES256", "kid": "k1", **header}
    first = {name: value for name, value in first.items() if value is not None}
    _header, claims, signature = issuer.token(CLAIMS).split(".")
    with pytest.raises(IdentityError, match=r"header|does not name"):
        verify(f"{b64url_encode(json.dumps(first).encode())}.{claims}.{signature}", keys_of(issuer))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"aud": "cloister:other"}, "deployment"),
        ({"aud": [AUDIENCE, "https://other.example"]}, "deployment"),
        ({"aud": None}, "deployment"),
        ({"aud": []}, "deployment"),
        ({"aud": AUDIENCE.upper()}, "deployment"),
        ({"sub": ""}, "whom"),
        ({"sub": 7}, "whom"),
        ({"iat": NOW - 300, "nbf": NOW - 300, "exp": NOW - 60}, "expired"),
        ({"exp": NOW + 3600}, "too long"),
        ({"iat": NOW - 8000, "exp": NOW + 300}, "too long"),
        ({"iat": NOW + 100, "nbf": NOW, "exp": NOW + 300}, "future"),
        ({"nbf": NOW + 100}, "future"),
        ({"iat": NOW + 300, "exp": NOW + 300}, "too long"),
        ({"exp": True}, "malformed"),
        ({"exp": str(NOW + 300)}, "malformed"),
        ({"exp": 2**60}, "malformed"),
        ({"iat": -1}, "malformed"),
        ({"nbf": "x"}, "malformed"),
    ],
)
def test_claims_that_are_not_for_us_and_for_now_are_refused(
    issuer: TokenIssuer, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(IdentityError, match=says):
        verify(issuer.token({**CLAIMS, **change}), keys_of(issuer))


@pytest.mark.parametrize("name", ["aud", "sub", "exp", "iat"])
def test_an_absent_claim_is_never_the_right_one(issuer: TokenIssuer, name: str) -> None:
    claims = {key: value for key, value in CLAIMS.items() if key != name}
    with pytest.raises(IdentityError):
        verify(issuer.token(claims), keys_of(issuer))


@pytest.mark.parametrize(
    "change",
    [
        {"aud": [AUDIENCE]},
        {"iat": NOW - 300, "nbf": NOW - 300, "exp": NOW - 59},
        {"iat": NOW + 59, "nbf": NOW + 59},
    ],
)
def test_what_is_just_inside_the_bounds_is_accepted(issuer: TokenIssuer, change: dict[str, Any]) -> None:
    assert verify(issuer.token({**CLAIMS, **change}), keys_of(issuer))


def test_nothing_of_a_token_is_repeated(issuer: TokenIssuer) -> None:
    token = issuer.token({**CLAIMS, "sub": "hunter2", "aud": "hunter2"})
    with pytest.raises(IdentityError) as caught:
        verify(token, keys_of(issuer))
    assert "hunter2" not in str(caught.value)
    parsed = UnverifiedToken.parse(token)
    assert "hunter2" not in repr(parsed)


# --- hostile key sets -----------------------------------------------------------------------------------


def usable(*entries: Any) -> set[str]:
    return set(KeySet.parse(json.dumps({"keys": list(entries)}).encode()).keys)


GOOD = generate("ES256", "good").export_public(as_dict=True)


@pytest.mark.parametrize(
    "entry",
    [
        generate("RS256", "bad", size=1024).export_public(as_dict=True),
        {**generate("RS256", "bad").export_public(as_dict=True), "e": "Aw"},
        generate("ES256", "bad").export_private(as_dict=True),
        {"kty": "oct", "k": "AAAA", "kid": "bad"},
        {**generate("ES256", "bad").export_public(as_dict=True), "use": "enc"},
        {**generate("ES256", "bad").export_public(as_dict=True), "key_ops": ["encrypt"]},
        {**generate("ES256", "bad").export_public(as_dict=True), "key_ops": "verify"},
        {**generate("ES256", "bad").export_public(as_dict=True), "alg": "HS256"},
        {**generate("ES256", "bad").export_public(as_dict=True), "x": "AAAA"},
        {**generate("ES256", "bad").export_public(as_dict=True), "kid": 7},
        {**generate("ES256", "bad").export_public(as_dict=True), "kty": ["EC"]},
        generate("ES256", "bad", crv="P-521").export_public(as_dict=True),
        {"kty": "OKP", "crv": "X25519", "x": "A" * 43, "kid": "bad"},
        {"kty": "RSA", "n": "!", "e": "AQAB", "kid": "bad"},
        {"kty": "RSA", "kid": "bad"},
        "not even an object",
    ],
    ids=[
        "rsa-1024",
        "exponent-3",
        "private",
        "symmetric",
        "for-encryption",
        "not-to-verify",
        "operations-text",
        "foreign-algorithm",
        "off-curve",
        "kid-number",
        "type-list",
        "p-521",
        "x25519",
        "no-base64",
        "no-members",
        "text",
    ],
)
def test_a_key_that_is_weak_private_or_of_another_kind_is_not_there(entry: Any) -> None:
    assert usable(GOOD, entry) == {"good"}


def test_a_name_that_two_keys_have_names_neither() -> None:
    twin = generate("ES256", "twin").export_public(as_dict=True)
    assert usable(GOOD, twin, generate("ES256", "twin").export_public(as_dict=True)) == {"good"}
    # Also if one of the two is unusable: it may be the one that an older reader takes.
    assert usable(GOOD, twin, {"kty": "oct", "k": "AAAA", "kid": "twin"}) == {"good"}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": [], "keys": []}',
        b"\xff",
        b"[" * 100_000,
        json.dumps({"keys": [GOOD] * 65}).encode(),
        json.dumps({"keys": [GOOD], "padding": "x" * 200_000}).encode(),
    ],
    ids=["empty", "object", "array", "map", "none", "twice", "bytes", "deep", "many", "huge"],
)
def test_what_is_no_key_set_is_refused(raw: bytes) -> None:
    with pytest.raises(ConfigurationError):
        KeySet.parse(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_-]{0,40}(\.[A-Za-z0-9_-]{0,40}){0,4}"))
def test_any_text_is_a_token_or_an_identity_error(text: str) -> None:
    with pytest.raises(IdentityError):
        UnverifiedToken.parse(text)


@settings(max_examples=300, deadline=None)
@given(
    header=st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "x5t"]), json_values | st.just("ES256")
    ),
    claims=json_values | st.dictionaries(st.sampled_from(["iss", *CLAIMS]), json_values),
)
def test_any_json_is_a_token_or_an_identity_error(header: Any, claims: Any) -> None:
    parts = [b64url_encode(json.dumps(part).encode()) for part in (header, claims)]
    keys = KeySet.parse(json.dumps({"keys": [GOOD]}).encode())
    with pytest.raises(IdentityError):
        verify(".".join([*parts, "AAAA"]), keys)


@settings(max_examples=200, deadline=None)
@given(
    entries=st.lists(
        json_values
        | st.dictionaries(
            st.sampled_from(["kty", "kid", "n", "e", "x", "y", "crv", "use", "alg", "key_ops", "d"]),
            json_values,
        ),
        max_size=4,
    )
)
def test_any_json_is_a_key_set_or_a_configuration_error(entries: list[Any]) -> None:
    try:
        KeySet.parse(json.dumps({"keys": entries}).encode())
    except ConfigurationError:
        return
    pytest.fail("nobody draws a valid key by chance")


@settings(max_examples=200, deadline=None)
@given(
    claims=st.dictionaries(
        st.sampled_from(["aud", "sub", "iat", "nbf", "exp"]), json_values | st.integers(NOW - 100, NOW + 500)
    )
)
def test_any_claims_are_accepted_or_an_identity_error(claims: dict[str, Any]) -> None:
    try:
        check_claims({**CLAIMS, **claims}, audience=AUDIENCE, now=NOW, max_lifetime_seconds=3600)
    except IdentityError:
        return
    merged = {**CLAIMS, **claims}
    assert merged["aud"] in (AUDIENCE, [AUDIENCE])
    assert merged["exp"] > NOW - 60
