"""Sealed requests and replies, the keyset and its attestation, without I/O (SPEC.md beside this file).

Shared by the clients, the host and the receiving adapters: bytes and times go in, bytes come out.
"""

from cloister.protocol.attest import (
    AttestationDocument,
    AttestationResult,
    appraise_document,
    appraise_staple,
)
from cloister.protocol.delivery import VerifiedDelivery, payload_digest, verify_delivery
from cloister.protocol.deployment import audience, deployment_id, deployment_of
from cloister.protocol.exchange import (
    OpenedRequest,
    RequestBinding,
    SealedRequest,
    bind_request,
    body_digest,
    open_reply,
    open_request,
    request_kid,
    seal_reply,
    seal_request,
)
from cloister.protocol.keyset import (
    Keyset,
    KeysetKey,
    sign_keyset,
    staple_nonce,
    statement,
    verify_keyset,
)
from cloister.protocol.public_key import PublicKey, sign_public_key, verify_public_key
from cloister.protocol.stream import StreamOpener, StreamSealer

__all__ = [
    "AttestationDocument",
    "AttestationResult",
    "Keyset",
    "KeysetKey",
    "OpenedRequest",
    "PublicKey",
    "RequestBinding",
    "SealedRequest",
    "StreamOpener",
    "StreamSealer",
    "VerifiedDelivery",
    "appraise_document",
    "appraise_staple",
    "audience",
    "bind_request",
    "body_digest",
    "deployment_id",
    "deployment_of",
    "open_reply",
    "open_request",
    "payload_digest",
    "request_kid",
    "seal_reply",
    "seal_request",
    "sign_keyset",
    "sign_public_key",
    "staple_nonce",
    "statement",
    "verify_delivery",
    "verify_keyset",
    "verify_public_key",
]
