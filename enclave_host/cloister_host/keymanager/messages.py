"""What the operations on keys and values take and give. Bytes are base64url."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from cloister_host.keymanager.records import Purpose
from cloister_host.operations import Name, Request, Result

__all__ = [
    "MAX_BATCH",
    "Context",
    "DataKeyRequest",
    "IssuedDataKey",
    "KeyCreate",
    "KeyInfo",
    "KeyList",
    "KeyName",
    "NewKey",
    "Opened",
    "OpenedValues",
    "PublicKeyStatement",
    "SealedValue",
    "UnwrapRequest",
    "UnwrappedKey",
    "ValueOpen",
    "VersionInfo",
    "WrapRequest",
    "WrappedKey",
]

MAX_BATCH = 10_000

Kid = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,62}\.[1-9][0-9]{0,8}\Z", max_length=73)]
Encoded32Bytes = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{43}\Z", max_length=43)]
# 40 bytes of A256KW, or 48 of HPKE, whose encapsulation has at most 1120 (X-Wing).
EncryptedKey = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{54}(?:[A-Za-z0-9_-]{10})?\Z", max_length=64)]
Encapsulation = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]+\Z", max_length=1494)]
ContextText = Annotated[str, Meta(max_length=1024)]
Context = Annotated[dict[ContextText, ContextText], Meta(max_length=64)]


class KeyCreate(Request):
    """Names a new key and says what it is for."""

    key: Name
    purpose: Purpose


class KeyName(Request):
    """Names a key."""

    key: Name


class NewKey(Result):
    """The version that seals from now on."""

    key: str
    kid: str
    purpose: Purpose


class VersionInfo(Result):
    """One version of a key."""

    kid: str
    state: str
    created_at: int


class KeyInfo(Result):
    """One key and its versions, oldest first."""

    key: str
    purpose: Purpose
    kid: str
    versions: list[VersionInfo]


class KeyList(Result):
    """One page of keys; `next` continues it, and is empty at the end."""

    keys: list[KeyInfo]
    next: str


class PublicKeyStatement(Result):
    """A public half; `statement` is the deployment's word for it (a JWS)."""

    kid: str
    jwk: dict[str, Any]
    statement: str


class DataKeyRequest(Request):
    """Asks for a DEK; the key context says which part of the context selects it."""

    key: Name
    key_context: Context | None = None


class IssuedDataKey(Result):
    """A DEK, and the limits within which one process may seal with it (PROTOCOL 2)."""

    kid: str
    dek: str
    encrypted_key: str
    max_messages: int
    max_bytes: int
    max_age_seconds: int


class WrapRequest(Request):
    """A DEK to be wrapped under the current version of a key."""

    key: Name
    dek: Encoded32Bytes


class WrappedKey(Result):
    """A DEK under a key version."""

    kid: str
    encrypted_key: str


class UnwrapRequest(Request):
    """A wrapped DEK, or one sealed to a public half together with its encapsulation `ek`."""

    kid: Kid
    encrypted_key: EncryptedKey
    ek: Encapsulation | None = None


class UnwrappedKey(Result):
    """A DEK in the clear, for whoever holds the right `unwrap`."""

    dek: str


class SealedValue(Request):
    """A sealed value and the context it is bound to."""

    sealed: Annotated[str, Meta(max_length=48 * 1024 * 1024)]
    context: Context | None = None


class ValueOpen(Request):
    """Values for the host to open."""

    values: Annotated[list[SealedValue], Meta(min_length=1, max_length=MAX_BATCH)]


class Opened(Result, omit_defaults=True):
    """An opened value, or `error`. Octets are base64url."""

    cty: str | UnsetType = UNSET
    value: Any = UNSET
    error: str | UnsetType = UNSET


class OpenedValues(Result):
    """As many results as there were values, in their order."""

    values: list[Opened]
