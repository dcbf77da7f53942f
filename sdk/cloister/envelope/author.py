"""Who wrote a value: a statement inside the plaintext, signed by a registered key (SPEC.md section 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import rfc8785

from cloister.envelope.values import decode_value, encode_value
from cloister.errors import ConfigurationError, EvidenceError, OpenError
from cloister.jose import b64url_decode, b64url_encode, parse_jws_header, sign_compact, verify_claims
from cloister.jose.keys import Key, as_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.envelope.values import Value

__all__ = ["author_of", "authored", "open_authored"]

AUTHOR_TYP: Final = "cloister-author+jwt"
_MEMBERS: Final = frozenset({"content", "context", "cty", "key", "tenant"})


def authored(
    value: Value,
    *,
    signer: Mapping[str, Any] | Key,
    tenant: str,
    key: str,
    context: Mapping[str, str] | None = None,
) -> str:
    """Sign a value for one tenant, key and context; the text that comes out is what is then sealed.

    Args:
        value: Bytes, text or JSON.
        signer: Private key whose `kid` is the name it is registered under.
        tenant: Whose value it becomes.
        key: Name of the key it is going to be sealed under.
        context: What it is going to be bound to.

    Raises:
        ConfigurationError: The key does not sign or has no `kid`, or the value cannot be sealed.
    """
    signing = as_key(signer)
    if not signing.kid:
        raise ConfigurationError("the key names no signer", hint="make one with `cloister signer create`")
    cty, content = encode_value(value)
    statement = {
        "content": b64url_encode(content),
        "context": None if context is None else dict(context),
        "cty": cty,
        "key": key,
        "tenant": tenant,
    }
    return sign_compact(rfc8785.dumps(statement), signing, typ=AUTHOR_TYP)


def author_of(text: object) -> str:
    """The name of the signer that an opened value claims, **unverified**, to look its key up.

    Raises:
        OpenError: It is no signed value.
    """
    try:
        kid = parse_jws_header(text)["kid"] if isinstance(text, str) else None
    except (EvidenceError, KeyError):
        kid = None
    if not isinstance(kid, str):
        raise OpenError
    return kid


def open_authored(
    text: str,
    signer: Mapping[str, Any] | Key,
    *,
    tenant: str,
    key: str,
    context: Mapping[str, str] | None = None,
) -> Value:
    """Give the value in a signed text back; raises `OpenError` for every failure alike."""
    try:
        claims = verify_claims(text, signer, typ=AUTHOR_TYP)
        bound = {"context": None if context is None else dict(context), "key": key, "tenant": tenant}
        if claims.keys() != _MEMBERS or any(claims[name] != value for name, value in bound.items()):
            raise OpenError
        content, cty = claims["content"], claims["cty"]
        if cty not in {"json", "text", "octets"} or not isinstance(content, str):
            raise OpenError
        return decode_value(cty, b64url_decode(content))
    except (EvidenceError, ConfigurationError, ValueError):
        raise OpenError from None
