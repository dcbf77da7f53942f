"""Every algorithm of the profile: what one side makes, the other side reads."""

import pytest

from cloister.errors import EvidenceError, OpenError
from cloister.jose import (
    Alg,
    Key,
    decrypt_compact,
    decrypt_compact_with_cek,
    encrypt_compact,
    encrypt_compact_with_cek,
    generate_key,
    parse_compact,
    parse_jws_header,
    sign_compact,
    unwrap_key,
    verify_compact,
    wrap_key,
)
from cloister.secret import Secret

ENCRYPTION: list[Alg] = ["A256KW", "dir", "HPKE-10-KE", "HPKE-7-KE"]
SIGNATURE: list[Alg] = ["EdDSA", "ES256", "ES384", "ML-DSA-65"]


@pytest.mark.parametrize("alg", ENCRYPTION)
def test_the_recipient_reads_what_was_encrypted_to_its_public_half(alg: Alg) -> None:
    key = generate_key(alg, kid="k.1")
    sender = key.public() if alg.startswith("HPKE") else key
    token, cek = encrypt_compact_with_cek(
        b"content", sender, typ="t", cty="c", headers={"jti": "1", "iat": 7}
    )
    assert decrypt_compact_with_cek(token, key, typ="t") == (b"content", cek)
    header = parse_compact(token).header
    ek = ["ek"] if alg.startswith("HPKE") else []
    assert list(header) == ["alg", "enc", "kid", "typ", *ek, "cty", "jti", "iat"]
    assert decrypt_compact(parse_compact(token), key.to_jwk(), typ="t") == b"content"


@pytest.mark.parametrize("alg", ["HPKE-10-KE", "HPKE-7-KE"])
def test_another_info_does_not_open(alg: Alg) -> None:
    key = generate_key(alg)
    token = encrypt_compact(b"content", key, info=b"request")
    assert decrypt_compact(token, key, info=b"request") == b"content"
    with pytest.raises(OpenError):
        decrypt_compact(token, key, info=b"reply")


@pytest.mark.parametrize("alg", SIGNATURE)
def test_a_signature_verifies_under_the_public_half(alg: Alg) -> None:
    key = generate_key(alg, kid="signer")
    token = sign_compact(b"payload", key, typ="t")
    assert parse_jws_header(token) == {"alg": alg, "kid": "signer", "typ": "t"}
    assert verify_compact(token, key.public(), typ="t") == b"payload"
    with pytest.raises(EvidenceError):
        verify_compact(token, generate_key(alg, kid="signer"), typ="t")


def test_a_wrapped_key_unwraps_under_its_key_alone() -> None:
    key = generate_key("A256KW")
    dek = Secret(bytes(range(32)))
    assert unwrap_key(wrap_key(dek, key), key) == dek
    with pytest.raises(OpenError):
        unwrap_key(wrap_key(dek, key), generate_key("A256KW"))


@pytest.mark.parametrize("alg", ENCRYPTION + SIGNATURE)
def test_a_key_survives_its_jwk(alg: Alg) -> None:
    key = generate_key(alg, kid="k.1")
    assert Key.from_jwk(key.to_jwk()).to_jwk() == key.to_jwk()
    assert key.is_private
