"""Signed tree heads: what the log looked like at one moment (PROTOCOL 8)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import rfc8785

from cloister import jose
from cloister.errors import EvidenceError, LogError
from cloister.protocol.keyset import Keyset, KeysetKey
from cloister.receipts.merkle import HASH_BYTES, MAX_SIZE

__all__ = ["HEAD_TYP", "TreeHead", "log_key_of", "sign_head", "verify_head", "verify_head_under"]

HEAD_TYP: Final = "cloister-sth+jwt"
VERSION: Final = 1
MAX_HEAD_CHARS: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeHead:
    """A tree head whose signature by a deployment's log key was verified.

    Attributes:
        size: How many leaves the tree has.
        root: Its root hash, 32 bytes.
        time: When it was signed: milliseconds since the epoch, more than in every head before it.
        previous: `digest` of the head before it; empty in the first.
        token: The signed form.
    """

    deployment: str
    size: int
    root: bytes
    time: int
    previous: str
    token: str

    @property
    def digest(self) -> str:
        """Base64url SHA-256 of the signed form."""
        return jose.b64url_encode(hashlib.sha256(self.token.encode()).digest())


def sign_head(
    *, deployment: str, size: int, root: bytes, time: int, previous: TreeHead | None, key: jose.Key
) -> TreeHead:
    """Sign a head with the log key; its times grow even if the clock does not."""
    payload: dict[str, Any] = {
        "v": VERSION,
        "deployment": deployment,
        "size": size,
        "root": jose.b64url_encode(root),
        "time": time if previous is None else max(time, previous.time + 1),
        "previous": "" if previous is None else previous.digest,
    }
    return _parse(jose.sign_compact(rfc8785.dumps(payload), key, typ=HEAD_TYP), payload)


def verify_head(token: str, *, keyset: Keyset) -> TreeHead:
    """Check a head under the log key that a keyset names.

    A deployment has one log key, so any of its keysets will do, whenever the head was signed.

    Raises:
        LogError: It is malformed, not by this log, or of another deployment.
    """
    _check_length(token)
    try:
        key = keyset.key("log", str(jose.parse_jws_header(token).get("kid")))
    except EvidenceError:
        raise LogError("the tree head is not signed by the log of this deployment") from None
    return verify_head_under(token, key=key.jwk, deployment=keyset.deployment)


def verify_head_under(token: str, *, key: Mapping[str, Any] | jose.Key, deployment: str) -> TreeHead:
    """Check a head under a log key that is known already.

    Raises:
        LogError: It is malformed, not by this key, or of another deployment.
    """
    _check_length(token)
    try:
        payload = jose.verify_claims(token, key, typ=HEAD_TYP)
    except EvidenceError:
        raise LogError("the tree head is not signed by the log of this deployment") from None
    head = _parse(token, payload)
    if head.deployment != deployment:
        raise LogError("the tree head is of another deployment")
    return head


def log_key_of(keyset: Keyset) -> KeysetKey | None:
    """The log key that a keyset names; hosts older than the log name none."""
    return next((key for key in keyset.keys if key.role == "log"), None)


def _check_length(token: str) -> None:
    if len(token) > MAX_HEAD_CHARS:
        raise LogError("the tree head is too large")


def _parse(token: str, payload: Mapping[str, Any]) -> TreeHead:
    size, time = payload.get("size"), payload.get("time")
    deployment, previous, root = payload.get("deployment"), payload.get("previous"), payload.get("root")
    if payload.get("v") != VERSION:
        raise LogError("the tree head has another version", hint="update the client or the host")
    if type(size) is not int or not 0 <= size <= MAX_SIZE or type(time) is not int or time < 0:
        raise LogError("the tree head is malformed")
    if not isinstance(deployment, str) or not isinstance(previous, str) or not isinstance(root, str):
        raise LogError("the tree head is malformed")
    try:
        found = jose.b64url_decode(root)
    except ValueError:
        found = b""
    if len(found) != HASH_BYTES:
        raise LogError("the tree head is malformed")
    return TreeHead(deployment=deployment, size=size, root=found, time=time, previous=previous, token=token)
