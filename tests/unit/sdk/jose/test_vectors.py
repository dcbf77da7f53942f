"""Vectors nobody here wrote: RFC 7520, the JOSE-HPKE drafts, Wycheproof."""

import gzip
import json
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from cloister.errors import ConfigurationError, EvidenceError, OpenError
from cloister.jose import (
    Key,
    b64url_encode,
    decrypt_compact,
    encrypt_compact,
    generate_key,
    parse_compact,
    thumbprint,
    verify_compact,
)
from cloister.jose._signatures import Ecdsa

VECTORS = Path(__file__).parents[3] / "vectors" / "jose"


def _load(name: str) -> Any:
    path = VECTORS / name
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return json.loads(raw)


def _rfc_7520(pattern: str) -> list[Path]:
    return sorted((VECTORS / "rfc7520").glob(pattern))


@pytest.mark.parametrize("vector", _load("hpke_profile.json"), ids=lambda vector: str(vector["alg"]))
def test_the_examples_of_the_hpke_drafts_open(vector: dict[str, Any]) -> None:
    key = Key.from_jwk(vector["jwk"])
    assert decrypt_compact(vector["compact"], key).startswith(b"You can trust us to stick with you")
    assert decrypt_compact(encrypt_compact(b"ours", key.public()), key) == b"ours"
    assert thumbprint(key) == key.kid


@pytest.mark.parametrize("vector", _load("hpke_other_suites.json"), ids=lambda vector: str(vector["alg"]))
def test_other_hpke_suites_are_refused_and_the_refusal_names_ours(vector: dict[str, Any]) -> None:
    with pytest.raises(OpenError) as refused:
        parse_compact(vector["compact"])
    assert "HPKE-10-KE" in refused.value.hint
    with pytest.raises(ConfigurationError, match="alg is missing or not supported"):
        Key.from_jwk(vector["jwk"])


@pytest.mark.parametrize(
    "path", sorted((VECTORS / "rfc7520").glob("jwe_*.json")), ids=lambda path: path.name[:7]
)
def test_rfc_7520_encryption_outside_the_profile_is_refused(path: Path) -> None:
    """RSA-OAEP, ECDH-ES and the 128-bit suites are none of ours."""
    vector = json.loads(path.read_bytes())
    with pytest.raises(OpenError) as refused:
        parse_compact(vector["output"]["compact"])
    assert "enc A256GCM" in refused.value.hint
    with pytest.raises(ConfigurationError):
        Key.from_jwk(vector["input"]["key"])


@pytest.mark.parametrize(
    "path", sorted((VECTORS / "rfc7520").glob("jws_*.json")), ids=lambda path: path.name[:7]
)
def test_rfc_7520_signatures_outside_the_profile_are_refused(path: Path) -> None:
    vector = json.loads(path.read_bytes())
    with pytest.raises(ConfigurationError):
        Key.from_jwk(vector["input"]["key"])
    with pytest.raises(EvidenceError):
        verify_compact(vector["output"]["compact"], generate_key("ES256"), typ="")


def test_rfc_7520_ec_key_needs_an_alg_and_its_own_curve() -> None:
    jwk = _load("rfc7520/jwk_3_2.ec_private_key.json")
    for alg in ("ES256", "ES384", "HPKE-7-KE"):
        with pytest.raises(ConfigurationError, match="crv"):
            Key.from_jwk(jwk | {"alg": alg})


def test_wycheproof_ecdsa_p256_as_the_raw_form_of_jose() -> None:
    verified = {"valid": 0, "invalid": 0}
    for group in _load("wycheproof/ecdsa_secp256r1_sha256_test.json.gz")["testGroups"]:
        point = bytes.fromhex(group["publicKey"]["uncompressed"])[1:]
        key = Key.from_jwk(
            {"kty": "EC", "crv": "P-256", "alg": "ES256"}
            | {"x": b64url_encode(point[:32]), "y": b64url_encode(point[32:])}
        )
        operations = cast("Ecdsa", key.operations)
        for test in group["tests"]:
            try:
                r, s = decode_dss_signature(bytes.fromhex(test["sig"]))
                raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
            except (ValueError, OverflowError):
                continue  # a fault of DER, or a number that the raw form cannot hold
            if test["result"] == "valid":
                operations.verify(raw, bytes.fromhex(test["msg"]))
            else:
                with pytest.raises(EvidenceError):
                    operations.verify(raw, bytes.fromhex(test["msg"]))
            verified[test["result"]] += 1
    assert verified["valid"] == 174
    assert verified["invalid"] > 50


def test_wycheproof_p256_points_are_accepted_only_on_the_curve() -> None:
    seen = {"valid": 0, "invalid": 0}
    for test in _load("wycheproof/ecdh_secp256r1_test.json.gz")["testGroups"][0]["tests"]:
        spki = bytes.fromhex(test["public"])
        if test["result"] not in seen or len(spki) != 91 or spki[26] != 4:
            continue  # faults of the ASN.1 encoding, which a JWK does not have
        jwk = {"kty": "EC", "crv": "P-256", "alg": "HPKE-7-KE"}
        jwk |= {"x": b64url_encode(spki[27:59]), "y": b64url_encode(spki[59:])}
        if test["result"] == "valid":
            assert not Key.from_jwk(jwk).is_private
        else:
            with pytest.raises(ConfigurationError):
                Key.from_jwk(jwk)
        seen[test["result"]] += 1
    assert seen == {"valid": 330, "invalid": 18}
