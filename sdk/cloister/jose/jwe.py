"""Compact JWE (RFC 7516) for the suites of this profile; SPEC.md beside this file is byte-exact."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.errors import ConfigurationError, OpenError
from cloister.jose._management import CEK_BYTES, KeyWrap
from cloister.jose.base64url import b64url_decode, b64url_encode
from cloister.jose.keys import Key, as_key
from cloister.jose.strict_json import dump_compact, load_object
from cloister.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.jose._management import KeyManagement

__all__ = [
    "Jwe",
    "decrypt_compact",
    "decrypt_compact_with_cek",
    "encrypt_compact",
    "encrypt_compact_with_cek",
    "parse_compact",
    "parse_jwe_header",
    "unwrap_key",
    "wrap_key",
]

KEY_MANAGEMENT: Final = frozenset({"A256KW", "dir", "HPKE-7-KE", "HPKE-10-KE"})
MAX_CHARS: Final = 64 * 1024 * 1024
MAX_HEADER_CHARS: Final = 8 * 1024
IV_BYTES: Final = 12
TAG_BYTES: Final = 16
_REFUSED: Final = frozenset({"crit", "zip", "psk_id"})
_TEXT: Final = ("alg", "enc", "kid", "typ", "cty", "ek")
_OURS: Final = frozenset(_TEXT) | _REFUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Jwe:
    """A well-formed token of this profile; nothing in it is authenticated yet."""

    header: dict[str, Any]
    protected: str
    encrypted_key: bytes
    iv: bytes
    ciphertext: bytes = field(repr=False)
    tag: bytes


def encrypt_compact(
    plaintext: bytes,
    jwk: Mapping[str, Any] | Key,
    *,
    typ: str | None = None,
    cty: str | None = None,
    headers: Mapping[str, str | int] | None = None,
    info: bytes = b"",
) -> str:
    """Encrypt to a key; the content-encryption key and the IV are drawn inside.

    Args:
        plaintext: The content.
        jwk: An encryption key of this profile; a public half is enough for HPKE.
        typ: Header `typ`; every message between parts of Cloister has one.
        cty: Header `cty`.
        headers: Further protected header members.
        info: Extra HPKE info (draft-ietf-jose-hpke-encrypt section 6.1, `recipient_extra_info`).

    Raises:
        ConfigurationError: The key is not an encryption key, or `headers` names a reserved member.
    """
    return encrypt_compact_with_cek(plaintext, jwk, typ=typ, cty=cty, headers=headers, info=info)[0]


def encrypt_compact_with_cek(
    plaintext: bytes,
    jwk: Mapping[str, Any] | Key,
    *,
    typ: str | None = None,
    cty: str | None = None,
    headers: Mapping[str, str | int] | None = None,
    info: bytes = b"",
) -> tuple[str, Secret]:
    """Encrypt as `encrypt_compact` and return the content-encryption key, from which a reply key derives."""
    key = as_key(jwk)
    drawn = management(key).draw(info)
    members: dict[str, str | int | None] = {
        "alg": key.alg,
        "enc": "A256GCM",
        "kid": key.kid,
        "typ": typ,
        "ek": drawn.ek,
        "cty": cty,
    }
    header = {name: value for name, value in members.items() if value is not None}
    for name, value in (headers or {}).items():
        if name in _OURS or not isinstance(value, (str, int)):
            raise ConfigurationError("headers: a member is reserved, or is neither string nor integer")
        header[name] = value
    protected = b64url_encode(dump_compact(header))
    if len(protected) > MAX_HEADER_CHARS:
        raise ConfigurationError("headers: too long", hint=f"{MAX_HEADER_CHARS} characters once encoded")
    iv = os.urandom(IV_BYTES)
    sealed = AESGCM(drawn.cek).encrypt(iv, plaintext, protected.encode("ascii"))
    parts = (drawn.encrypted_key, iv, sealed[:-TAG_BYTES], sealed[-TAG_BYTES:])
    return ".".join((protected, *map(b64url_encode, parts))), Secret(drawn.cek)


def decrypt_compact(
    token: str | Jwe, jwk: Mapping[str, Any] | Key, *, typ: str | None = None, info: bytes = b""
) -> bytes:
    """Decrypt a token.

    Args:
        token: Compact serialization, or the result of `parse_compact`.
        jwk: The one candidate key; there is no trial decryption.
        typ: The `typ` the token must have; None means that it must have none.
        info: Extra HPKE info, as given by the sender.

    Raises:
        OpenError: The token is malformed, of another profile or type, or does not open under this key.
        ConfigurationError: The key is not a private or symmetric encryption key.
    """
    return decrypt_compact_with_cek(token, jwk, typ=typ, info=info)[0]


def decrypt_compact_with_cek(
    token: str | Jwe, jwk: Mapping[str, Any] | Key, *, typ: str | None = None, info: bytes = b""
) -> tuple[bytes, Secret]:
    """Decrypt as `decrypt_compact` and return the content-encryption key too."""
    key = as_key(jwk)
    manage = management(key)
    jwe = token if isinstance(token, Jwe) else parse_compact(token)
    if jwe.header.get("typ") != typ:
        raise OpenError(hint="the token is of another typ")
    cek = recover_cek(jwe, key, manage, info)
    return decrypt_content(jwe, AESGCM(cek)), Secret(cek)


def recover_cek(jwe: Jwe, key: Key, manage: KeyManagement, info: bytes = b"") -> bytes:
    """Recover the content-encryption key of a parsed token; raises `OpenError`."""
    kid = jwe.header.get("kid")
    if jwe.header["alg"] != key.alg or (kid is not None and key.kid is not None and kid != key.kid):
        raise OpenError
    cek = manage.recover(jwe.header.get("ek"), jwe.encrypted_key, info)
    if len(cek) != CEK_BYTES:
        raise OpenError
    return cek


def decrypt_content(jwe: Jwe, aead: AESGCM) -> bytes:
    """Decrypt the content of a parsed token; raises `OpenError`."""
    try:
        return aead.decrypt(jwe.iv, jwe.ciphertext + jwe.tag, jwe.protected.encode("ascii"))
    except InvalidTag:
        raise OpenError from None


def parse_compact(token: str, *, max_chars: int = MAX_CHARS) -> Jwe:
    """Check the shape of a token without any key.

    Args:
        token: Compact serialization.
        max_chars: Refuse anything longer.

    Raises:
        OpenError: It is not a compact JWE of this profile.
    """
    if len(token) > max_chars:
        raise OpenError("not a JWE of this profile", hint=f"a string of at most {max_chars} characters")
    parts = token.split(".", 5)
    if len(parts) != 5:  # noqa: PLR2004 - RFC 7516 section 3.1
        raise OpenError("not a JWE of this profile", hint="compact serialization has five parts")
    header = parse_jwe_header(parts[0])
    try:
        encrypted_key, iv, ciphertext, tag = map(b64url_decode, parts[1:])
    except ValueError:
        raise OpenError("not a JWE of this profile", hint="a part is not canonical base64url") from None
    if len(iv) != IV_BYTES or len(tag) != TAG_BYTES:
        raise OpenError("not a JWE of this profile", hint="A256GCM has a 12-byte IV and a 16-byte tag")
    return Jwe(
        header=header,
        protected=parts[0],
        encrypted_key=encrypted_key,
        iv=iv,
        ciphertext=ciphertext,
        tag=tag,
    )


def parse_jwe_header(protected: str) -> dict[str, Any]:
    """Parse and check an encoded protected header; raises `OpenError`."""
    if len(protected) > MAX_HEADER_CHARS:
        raise OpenError("not a JWE of this profile", hint="the header is too long")
    try:
        header = load_object(b64url_decode(protected))
    except ValueError:
        raise OpenError("not a JWE of this profile", hint="the header is not strict JSON") from None
    if not _REFUSED.isdisjoint(header):
        raise OpenError("not a JWE of this profile", hint="crit, zip and psk_id are refused")
    for name in _TEXT:
        if not isinstance(header.get(name, ""), str):
            raise OpenError("not a JWE of this profile", hint=f"{name} must be a string")
    if header.get("alg") not in KEY_MANAGEMENT or header.get("enc") != "A256GCM":
        raise OpenError(
            "not a JWE of this profile",
            hint=f"alg must be one of {', '.join(sorted(KEY_MANAGEMENT))} and enc A256GCM",
        )
    return header


def wrap_key(cek: Secret, jwk: Mapping[str, Any] | Key) -> bytes:
    """Wrap a content-encryption key under an `A256KW` key: the `encrypted_key` of the tokens made with it."""
    if len(cek) != CEK_BYTES:
        raise ConfigurationError(f"a content-encryption key has {CEK_BYTES} bytes")
    return _key_wrap(jwk).wrap(cek.reveal())


def unwrap_key(encrypted_key: bytes, jwk: Mapping[str, Any] | Key) -> Secret:
    """Unwrap a content-encryption key under an `A256KW` key; raises `OpenError`."""
    return Secret(_key_wrap(jwk).unwrap(encrypted_key))


def management(key: Key) -> KeyManagement:
    """Return the key-management operations of an encryption key, or raise `ConfigurationError`."""
    if key.alg not in KEY_MANAGEMENT:
        raise ConfigurationError(f"a {key.alg} key does not encrypt", hint="use an encryption key")
    return cast("KeyManagement", key.operations)


def _key_wrap(jwk: Mapping[str, Any] | Key) -> KeyWrap:
    operations = as_key(jwk).operations
    if not isinstance(operations, KeyWrap):
        raise ConfigurationError("only an A256KW key wraps other keys")
    return operations
