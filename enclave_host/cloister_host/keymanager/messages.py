"""What the operations on keys and values take and give. Bytes are base64url."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from cloister_host.keymanager.records import KeyAlg, Purpose
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
    "KeyRotate",
    "KeyRules",
    "Kid",
    "Messages",
    "NewKey",
    "Opened",
    "OpenedValues",
    "Period",
    "PublicKeyStatement",
    "SealedValue",
    "Time",
    "UnwrapRequest",
    "UnwrappedKey",
    "ValueOpen",
    "VersionInfo",
    "WrapRequest",
    "WrappedKey",
]

MAX_BATCH = 10_000

Time = Annotated[int, Meta(ge=0, le=2**40)]
Period = Annotated[int, Meta(ge=1, le=100 * 366 * 86_400)]
Messages = Annotated[int, Meta(ge=1, le=2**48)]
Kid = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,62}\.[1-9][0-9]{0,8}\Z", max_length=73)]
Encoded32Bytes = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{43}\Z", max_length=43)]
# 40 bytes of A256KW, or 48 of HPKE, whose encapsulation has at most 1120 (X-Wing).
EncryptedKey = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{54}(?:[A-Za-z0-9_-]{10})?\Z", max_length=64)]
Encapsulation = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]+\Z", max_length=1494)]
ContextText = Annotated[str, Meta(max_length=1024)]
Context = Annotated[dict[ContextText, ContextText], Meta(max_length=64)]


class KeyRules(Request):
    """The rules a key's versions live by; see `KeyRecord`. What is not given has no limit."""

    active_seconds: Period | None = None
    recipient_seconds: Period | None = None
    rotate_seconds: Period | None = None
    max_messages: Messages | None = None
    destroy_wait_seconds: Period | None = None


class KeyCreate(KeyRules, kw_only=True):
    """Names a new key and says what it is for.

    Attributes:
        alg: One of the purpose's algorithms; the first, if it is not given.
        exportable: Whether versions may ever leave, wrapped.
        activate_at: When the first version becomes active, if not now.
    """

    key: Name
    purpose: Purpose
    alg: KeyAlg | None = None
    exportable: bool = False
    activate_at: Time | None = None


class KeyName(Request):
    """Names a key."""

    key: Name


class KeyRotate(Request):
    """Names the key that gets a new version.

    Attributes:
        activate_at: When it takes over, if not now.
        if_kid: The newest version as the caller knows it; another one refuses the rotation.
    """

    key: Name
    activate_at: Time | None = None
    if_kid: Kid | None = None


class NewKey(Result):
    """The new version, and since or from when it protects."""

    key: str
    kid: str
    purpose: Purpose
    alg: str


class VersionInfo(Result):
    """One version of a key; times are epoch seconds."""

    kid: str
    state: str
    origin: str
    created_at: int
    activate_at: int | None
    deactivate_at: int | None
    destroy_at: int | None
    processing_accepted: bool


class KeyInfo(Result):
    """One key, its rules and its versions, oldest first; `kid` is the version that protects, if any."""

    key: str
    purpose: Purpose
    alg: str
    kid: str | None
    exportable: bool
    min_seal: int
    min_open: int
    active_seconds: int | None
    recipient_seconds: int | None
    rotate_seconds: int | None
    rotate_at: int | None
    max_messages: int | None
    destroy_wait_seconds: int
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
    """Asks for a DEK; the key context says which part of the context selects it.

    Attributes:
        messages: How many values it is wanted for; what a limited key version leases, and never gets back.
    """

    key: Name
    key_context: Context | None = None
    messages: Annotated[int, Meta(ge=1, le=2**24)] = 2**24


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
