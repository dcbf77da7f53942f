"""Strict JOSE: compact JWE, compact JWS and JWK for the suites of this profile, and nothing else.

One key has one algorithm, a token is opened with the one key it names, and whatever this profile does
not need (`zip`, `crit`, `psk_id`, several recipients, lax base64, duplicate members) is refused. See SPEC.md.
"""

from cloister.jose.base64url import b64url_decode, b64url_encode
from cloister.jose.jwe import (
    Jwe,
    decrypt_compact,
    decrypt_compact_with_cek,
    encrypt_compact,
    encrypt_compact_with_cek,
    parse_compact,
    unwrap_key,
    wrap_key,
)
from cloister.jose.jws import parse_jws_header, sign_compact, verify_claims, verify_compact
from cloister.jose.keys import Alg, Key, generate_key, public_jwk, thumbprint

__all__ = [
    "Alg",
    "Jwe",
    "Key",
    "b64url_decode",
    "b64url_encode",
    "decrypt_compact",
    "decrypt_compact_with_cek",
    "encrypt_compact",
    "encrypt_compact_with_cek",
    "generate_key",
    "parse_compact",
    "parse_jws_header",
    "public_jwk",
    "sign_compact",
    "thumbprint",
    "unwrap_key",
    "verify_claims",
    "verify_compact",
    "wrap_key",
]
