"""Two other JOSE libraries read what we write, and we read what they write."""

import json
from typing import Any

import pytest
from joserfc import jwe as joserfc_jwe
from joserfc import jws as joserfc_jws
from joserfc.jwk import ECKey, OctKey, OKPKey
from jwcrypto import jwe as jwcrypto_jwe
from jwcrypto import jwk as jwcrypto_jwk
from jwcrypto import jws as jwcrypto_jws

from cloister.jose import Alg, decrypt_compact, encrypt_compact, generate_key, sign_compact, verify_compact

SYMMETRIC: list[Alg] = ["A256KW", "dir"]
SIGNATURE: list[Alg] = ["EdDSA", "ES256", "ES384"]
JOSERFC: dict[str, Any] = {"EdDSA": OKPKey, "ES256": ECKey, "ES384": ECKey}


@pytest.mark.parametrize("alg", SYMMETRIC)
def test_joserfc_and_we_read_each_others_jwe(alg: Alg) -> None:
    key = generate_key(alg, kid="k")
    other = OctKey.import_key({"kty": "oct", "k": key.to_jwk()["k"]})
    theirs = joserfc_jwe.encrypt_compact({"alg": alg, "enc": "A256GCM", "typ": "t"}, b"hello", other)
    assert decrypt_compact(theirs, key, typ="t") == b"hello"
    ours = encrypt_compact(b"hello", key, typ="t", cty="octets")
    opened = joserfc_jwe.decrypt_compact(ours, other)
    assert opened.plaintext == b"hello"
    assert opened.protected == {"alg": alg, "enc": "A256GCM", "kid": "k", "typ": "t", "cty": "octets"}


@pytest.mark.parametrize("alg", SYMMETRIC)
def test_jwcrypto_and_we_read_each_others_jwe(alg: Alg) -> None:
    key = generate_key(alg, kid="k")
    other = jwcrypto_jwk.JWK(kty="oct", k=key.to_jwk()["k"])
    token = jwcrypto_jwe.JWE(b"hello", json.dumps({"alg": alg, "enc": "A256GCM"}))
    token.add_recipient(other)
    assert decrypt_compact(token.serialize(compact=True), key) == b"hello"
    ours = jwcrypto_jwe.JWE()
    ours.deserialize(encrypt_compact(b"hello", key), other)
    assert ours.payload == b"hello"


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated via RFC 9864")
@pytest.mark.parametrize("alg", SIGNATURE)
def test_joserfc_and_we_verify_each_others_jws(alg: Alg) -> None:
    key = generate_key(alg)
    other = JOSERFC[alg].import_key({name: value for name, value in key.to_jwk().items() if name != "alg"})
    registry = joserfc_jws.JWSRegistry(algorithms=[alg])
    theirs = joserfc_jws.serialize_compact({"alg": alg, "typ": "t"}, b"hello", other, registry=registry)
    assert verify_compact(theirs, key, typ="t") == b"hello"
    ours = joserfc_jws.deserialize_compact(sign_compact(b"hello", key, typ="t"), other, registry=registry)
    assert ours.payload == b"hello"


@pytest.mark.parametrize("alg", [*SIGNATURE, "ML-DSA-65"])
def test_jwcrypto_and_we_verify_each_others_jws(alg: Alg) -> None:
    key = generate_key(alg)
    # The key type AKP is read by its alg; the others' is given with the signature.
    left_out = set() if alg == "ML-DSA-65" else {"alg"}
    other = jwcrypto_jwk.JWK(**{name: value for name, value in key.to_jwk().items() if name not in left_out})
    token = jwcrypto_jws.JWS(b"hello")
    token.allowed_algs = [alg]
    token.add_signature(other, protected=json.dumps({"alg": alg, "typ": "t"}))
    assert verify_compact(token.serialize(compact=True), key, typ="t") == b"hello"
    ours = jwcrypto_jws.JWS()
    ours.allowed_algs = [alg]
    ours.deserialize(sign_compact(b"hello", key, typ="t"), other)
    assert ours.payload == b"hello"
