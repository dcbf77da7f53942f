"""What a deployment signs about one of its backups (SPEC section 2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cloister import jose
from cloister.errors import EvidenceError
from cloister.protocol.deployment import sign_as_deployment, verify_as_deployment
from cloister.receipts.head import TreeHead, verify_head_under

__all__ = ["MANIFEST_TYP", "MAX_MANIFEST_BYTES", "Manifest"]

MANIFEST_TYP: Final = "cloister-backup+jwt"
MAX_MANIFEST_BYTES: Final = 16 * 1024
VERSION: Final = 1
_IS_ID: Final = re.compile(r"[A-Za-z0-9_-]{22}").fullmatch
_IS_DIGEST: Final = re.compile(r"[A-Za-z0-9_-]{43}").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One backup, as the deployment describes it.

    Attributes:
        deployment: Whose it is.
        id: The backup's name in the deployment's log and list: 128 random bits.
        created_at: Of the moment that it shows (epoch seconds).
        incarnation: How often the deployment had been restored before.
        head: The newest head of the audit log in it.
        log_key: Public key of that log.
        key: RFC 7638 thumbprint of the key it is sealed to.
        object_bytes: Length of the sealed object.
        object_digest: Its SHA-256, base64url.
    """

    deployment: str
    id: str
    created_at: int
    incarnation: int
    head: TreeHead
    log_key: Mapping[str, Any]
    key: str
    object_bytes: int
    object_digest: str

    def of_object(self, digest: str, size: int) -> Manifest:
        """The same manifest, of the sealed object that was made for it."""
        return replace(self, object_digest=digest, object_bytes=size)

    def sign(self, key: jose.Key) -> str:
        """Sign it with the deployment key."""
        members = {
            "v": VERSION,
            "deployment": self.deployment,
            "id": self.id,
            "created_at": self.created_at,
            "incarnation": self.incarnation,
            "head": self.head.token,
            "log_key": dict(self.log_key),
            "key": self.key,
            "object_bytes": self.object_bytes,
            "object_digest": self.object_digest,
        }
        return sign_as_deployment(members, key, typ=MANIFEST_TYP)

    @classmethod
    def verify(cls, token: str, *, deployment: str | None) -> Manifest:
        """Check a manifest's signatures, and read it.

        Args:
            token: The signed form.
            deployment: Whose it must be; None accepts any, for callers that compare `deployment`.

        Raises:
            EvidenceError: It is malformed, or signed by another deployment.
            LogError: Its tree head is not of that deployment's log.
        """
        claims = verify_as_deployment(token, typ=MANIFEST_TYP, deployment=deployment)
        if claims.get("v") != VERSION:
            raise EvidenceError("the backup has another version", hint="update the client or the host")
        numbers = (claims.get("created_at"), claims.get("incarnation"), claims.get("object_bytes"))
        names = (claims.get("id"), claims.get("key"), claims.get("object_digest"), claims.get("head"))
        log_key = claims.get("log_key")
        if (
            not all(type(number) is int and number >= 0 for number in numbers)
            or not all(isinstance(name, str) for name in names)
            or not isinstance(log_key, dict)
            or not _IS_ID(claims["id"])
            or not _IS_DIGEST(claims["key"])
            or not _IS_DIGEST(claims["object_digest"])
        ):
            raise EvidenceError("the backup's manifest is malformed")
        named = str(claims["deployment"])
        return cls(
            deployment=named,
            id=claims["id"],
            created_at=claims["created_at"],
            incarnation=claims["incarnation"],
            head=verify_head_under(claims["head"], key=log_key, deployment=named),
            log_key=log_key,
            key=claims["key"],
            object_bytes=claims["object_bytes"],
            object_digest=claims["object_digest"],
        )
