"""Client certificates: a chain to the tenant's authority, and a proof by its key over this very request."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.errors import ConfigurationError, IdentityError
from cloister.identity_files import Certificate
from cloister.protocol import RequestBinding
from cloister_host.identity.certificates import VerifiedCertificate, verify_chain
from support.client_authority import NAME, Authority
from support.host_world import Clock, HostWorld

NOW = dt.datetime.fromtimestamp(Clock().now, dt.UTC)
BODY = {"op": "key.list", "tenant": "acme", "idempotency_key": "k", "payload": {"a": 1}}
BINDING = RequestBinding(kid="request-1", jti="A" * 22, body=BODY)
KEYS: dict[str, Any] = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "PS256": lambda: rsa.generate_private_key(65537, 2048),
}


def identity(key: Any, *chain: x509.Certificate) -> Certificate:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Certificate(chain=b"".join(one.public_bytes(Encoding.PEM) for one in chain), key=pem)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create(now=NOW)


@pytest.fixture
def host(tmp_path: Path, authority: Authority) -> Iterator[HostWorld]:
    """`acme` trusts the authority, and `app` is bound to the certificate's one name."""
    world = HostWorld(tmp_path)
    world.call(world.admin, "issuer.create", issuer="ca:corp", certificates=authority.pem)
    world.call(world.admin, "principal.create", principal="app", kind="service", api_key=False)
    claims = {"sub": "uri:spiffe://acme/app"}
    world.call(world.admin, "principal.bind", principal="app", issuer="ca:corp", claims=claims)
    yield world
    world.close()


def sign_in(host: HostWorld, credential: Any, binding: RequestBinding = BINDING) -> Any:
    return host.sign_in(credential, proof=binding)


def credential(authority: Authority, kind: str = "ES256", **made: Any) -> dict[str, Any]:
    key = KEYS[kind]()
    return dict(identity(key, authority.issue(key, **made)).credential(deployment="d", request=BINDING))


@pytest.mark.parametrize("kind", KEYS)
def test_a_certificate_and_its_proof_give_the_bound_principal(
    host: HostWorld, authority: Authority, kind: str
) -> None:
    who = sign_in(host, credential(authority, kind))
    assert (who.principal, who.kind) == ("app", "service")
    assert who.claims["sub"] == "uri:spiffe://acme/app"


@pytest.mark.parametrize(
    "change",
    [
        {"kid": "request-2"},
        {"jti": "B" * 22},
        {"body": {**BODY, "op": "key.create"}},
        {"body": {**BODY, "payload": {"a": 2}}},
        {"body": {**BODY, "tenant": "globex"}},
        {"body": {**BODY, "idempotency_key": "other"}},
        {"body": {**BODY, "purpose": "fraud"}},
    ],
    ids=["key", "identifier", "operation", "payload", "tenant", "idempotency-key", "purpose"],
)
def test_a_proof_fits_no_other_request(host: HostWorld, authority: Authority, change: dict[str, Any]) -> None:
    good = credential(authority)
    with pytest.raises(IdentityError):
        sign_in(host, good, replace(BINDING, **change))
    assert sign_in(host, good)


def test_a_proof_by_another_key_is_refused(host: HostWorld, authority: Authority) -> None:
    mine, other = credential(authority), credential(authority)
    with pytest.raises(IdentityError):
        sign_in(host, {**mine, "jws": other["jws"]})


@pytest.mark.parametrize("kind", ["PS256", "ES384"])
def test_a_proof_of_another_algorithm_is_refused(host: HostWorld, authority: Authority, kind: str) -> None:
    good = credential(authority, kind)
    _header, claims, signature = good["jws"].split(".")
    for alg in ("none", "RS256", "HS256", "ES256"):
        header = base64.urlsafe_b64encode(
            json.dumps({"alg": alg, "typ": "cloister-identity+jwt"}).encode()
        ).decode()
        with pytest.raises(IdentityError):
            sign_in(host, {**good, "jws": f"{header.rstrip('=')}.{claims}.{signature}"})


def test_without_a_request_there_is_no_proof(host: HostWorld, authority: Authority) -> None:
    with pytest.raises(IdentityError):
        host.sign_in(credential(authority))


@pytest.mark.parametrize(
    "made",
    [
        {"begins": NOW + dt.timedelta(hours=1)},
        {"begins": NOW - dt.timedelta(days=3)},
        {"usages": [ExtendedKeyUsageOID.SERVER_AUTH]},
        {"names": [NAME, x509.DNSName("admin.acme.example")]},
        {"names": []},
        {"names": [x509.DNSName("app.acme.example")]},
    ],
    ids=["future", "expired", "for-servers", "two-names", "no-name", "another-name"],
)
def test_a_certificate_with_one_thing_wrong_is_refused(
    host: HostWorld, authority: Authority, made: dict[str, Any]
) -> None:
    with pytest.raises(IdentityError):
        sign_in(host, credential(authority, **made))


def test_a_certificate_of_another_authority_is_refused(host: HostWorld) -> None:
    with pytest.raises(IdentityError):
        sign_in(host, credential(Authority.create(now=NOW)))


def test_a_certificate_that_says_another_authoritys_name_is_refused(host: HostWorld) -> None:
    with pytest.raises(IdentityError):
        sign_in(host, credential(Authority.create("Acme", now=NOW)))


def test_an_authority_of_another_tenant_vouches_for_nobody_here(host: HostWorld) -> None:
    other = Authority.create("Globex", now=NOW)
    host.call(host.other_admin, "issuer.create", issuer="ca:corp", certificates=other.pem)
    with pytest.raises(IdentityError):
        sign_in(host, credential(other))


def test_a_chain_under_two_authorities_is_refused(host: HostWorld, authority: Authority) -> None:
    host.call(host.admin, "issuer.create", issuer="ca:again", certificates=authority.pem)
    with pytest.raises(IdentityError):
        sign_in(host, credential(authority))


@pytest.mark.parametrize("chain", [[], ["x"], ["AAAA"], ["A" * 20_000], ["AAAA"] * 9, [""]], ids=str)
def test_a_chain_that_is_none_is_refused(host: HostWorld, authority: Authority, chain: list[str]) -> None:
    with pytest.raises(IdentityError):
        sign_in(host, {**credential(authority), "chain": chain})


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_bytes_are_a_chain_or_an_identity_error(authority: Authority, data: st.DataObject) -> None:
    good = authority.issue(KEYS["ES256"]()).public_bytes(Encoding.DER)
    changed = bytearray(good)
    changed[data.draw(st.integers(0, 10_000)) % len(good)] ^= data.draw(st.integers(1, 255))
    with pytest.raises(IdentityError):
        verify(authority, data.draw(st.binary(max_size=100)))
    try:
        found = verify(authority, bytes(changed))
    except IdentityError:
        return
    # Only a bit that says nothing, such as the count of unused bits before the signature, may go unnoticed.
    assert found.claims == verify(authority, good).claims


def test_a_serial_number_below_one_is_refused_without_a_warning(authority: Authority) -> None:
    good = authority.issue(KEYS["ES256"]()).public_bytes(Encoding.DER)
    serial = good.index(b"\x02", good.index(b"\x02\x01\x02") + 3)
    changed = bytearray(good)
    changed[serial + 2] |= 0x80
    with pytest.raises(IdentityError):
        verify(authority, bytes(changed))


def verify(authority: Authority, raw: bytes) -> VerifiedCertificate:
    return verify_chain([base64.b64encode(raw).decode()], authority.pem, now=NOW.timestamp())


@settings(max_examples=200, deadline=None)
@given(proof=st.text(max_size=100) | st.from_regex(r"[A-Za-z0-9_-]{0,30}(\.[A-Za-z0-9_-]{0,30}){1,3}"))
def test_any_text_is_a_proof_or_an_identity_error(authority: Authority, proof: str) -> None:
    from cloister_host.identity.certificates import verify_proof

    key = KEYS["ES256"]()
    chain = [base64.b64encode(authority.issue(key).public_bytes(Encoding.DER)).decode()]
    certificate = verify_chain(chain, authority.pem, now=NOW.timestamp())
    with pytest.raises(IdentityError):
        verify_proof(proof, certificate, kid="k", jti="j", digest=b"d")


def test_an_authority_must_be_one(host: HostWorld, authority: Authority) -> None:
    leaf = authority.issue(KEYS["ES256"]()).public_bytes(Encoding.PEM).decode()
    for pem in (leaf, Authority.create(now=NOW, ca=False).pem, authority.pem * 17, "x" * 60_000, "\u00e9"):
        with pytest.raises(ConfigurationError):
            host.call(host.admin, "issuer.create", issuer="ca:other", certificates=pem)


# --- the client's side --------------------------------------------------------------------------------


def test_a_key_that_is_not_the_certificates_is_refused(authority: Authority) -> None:
    with pytest.raises(ConfigurationError, match="cannot be used"):
        identity(KEYS["ES256"](), authority.issue(KEYS["ES256"]()))


@pytest.mark.parametrize(
    "key", [b"", b"x" * 100_000, b"-----BEGIN PRIVATE KEY-----\n"], ids=["no", "huge", "cut"]
)
def test_files_that_hold_no_certificate_or_key_are_refused(authority: Authority, key: bytes) -> None:
    with pytest.raises(ConfigurationError):
        Certificate(chain=authority.pem.encode(), key=key)
    with pytest.raises(ConfigurationError):
        Certificate(chain=key, key=key)


def test_a_certificate_identity_shows_nothing(authority: Authority) -> None:
    key = KEYS["ES256"]()
    assert repr(identity(key, authority.issue(key))) == "Certificate(<hidden>)"
