"""Seal to a public half without asking the host, and open with the keys themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloister.envelope.content import ContentKey, ContentSealer
from cloister.envelope.dek import MAX_BYTES, MAX_MESSAGES
from cloister.envelope.sealed import Sealed, is_kid
from cloister.envelope.values import Padded, Value, encode_value
from cloister.errors import ConfigurationError, LimitError, OpenError
from cloister.jose.jwe import management
from cloister.jose.keys import Key, as_key
from cloister.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["draw_sealer", "open_with", "open_with_cek", "recover_cek", "seal_many_to", "seal_to"]


def seal_to(
    value: Value,
    public_jwk: Mapping[str, Any] | Key,
    *,
    kid: str,
    context: Mapping[str, str] | None = None,
) -> Sealed:
    """Seal one value to the public half of a tenant's key (HPKE), offline.

    About 2.2 KB over the value: for documents, not for columns. Such a value proves nothing about who
    sealed it.

    Args:
        value: Bytes, text or JSON.
        public_jwk: The public half; where it comes from is the caller's trust decision.
        kid: The key version it is the public half of, `<name>.<version>`.
        context: The names and values it is bound to.

    Raises:
        ConfigurationError: The key is no HPKE key or has another `kid`; the value cannot be sealed.
    """
    return seal_many_to([value], public_jwk, kid=kid, contexts=[context])[0]


def seal_many_to(
    values: Sequence[Value | Padded],
    public_jwk: Mapping[str, Any] | Key,
    *,
    kid: str,
    contexts: Sequence[Mapping[str, str] | None] | None = None,
) -> list[Sealed]:
    """Seal a batch as `seal_to` does, under one encapsulation; its header shows which values belong together.

    Raises:
        LimitError: More than 2**24 values or 2**36 bytes.
        ConfigurationError: As `seal_to`; or there are not as many contexts as values.
    """
    key = as_key(public_jwk)
    if not key.alg.startswith("HPKE"):
        raise ConfigurationError(f"a {key.alg} key is no public key to seal to", hint="an HPKE key")
    if not is_kid(kid) or key.kid not in {None, kid}:
        raise ConfigurationError("kid is not <name>.<version>, or the key has another")
    each = [None] * len(values) if contexts is None else contexts
    if len(each) != len(values):
        raise ConfigurationError("as many contexts as values are needed")
    encoded = [encode_value(value) for value in values]
    if len(encoded) > MAX_MESSAGES or sum(len(content) for _, content in encoded) > MAX_BYTES:
        raise LimitError("a batch has at most 2**24 values and 2**36 bytes", hint="seal it in parts")
    sealer = draw_sealer(key, kid=kid)
    return [sealer.seal(cty, content, context) for (cty, content), context in zip(encoded, each, strict=True)]


def draw_sealer(key: Key, *, kid: str) -> ContentSealer:
    """Draw a content-encryption key for a public half; whoever uses it counts, as `seal_many_to` does."""
    drawn = management(key).draw(b"")
    return ContentSealer(drawn.cek, alg=key.alg, kid=kid, encrypted_key=drawn.encrypted_key, ek=drawn.ek)


def recover_cek(sealed: str, key: Mapping[str, Any] | Key) -> Secret:
    """Recover a value's content-encryption key with the key version it names, to keep in an `OpenCache`.

    Raises:
        OpenError: The value names another key, or its key does not unwrap.
    """
    sealed, key = Sealed(sealed), as_key(key)
    if sealed.alg != key.alg or key.kid not in {None, sealed.kid}:
        raise OpenError
    return Secret(management(key).recover(sealed.header.ek, sealed.encrypted_key, b""))


def open_with(sealed: str, key: Mapping[str, Any] | Key, context: Mapping[str, str] | None = None) -> Value:
    """Open a value with the key version it was sealed under.

    Raises:
        OpenError: The value is malformed, names another key, or does not open with this key and context.
    """
    return ContentKey(recover_cek(sealed, key).reveal()).open(sealed, context)


def open_with_cek(sealed: str, cek: bytes, context: Mapping[str, str] | None = None) -> Value:
    """Open a value with its content-encryption key, as after an `unwrap` call for its `encrypted_key`.

    Raises:
        OpenError: As `open_with`.
        ConfigurationError: The content-encryption key has not 32 bytes.
    """
    return ContentKey(cek).open(sealed, context)
