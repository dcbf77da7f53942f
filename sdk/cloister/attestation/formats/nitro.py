"""AWS Nitro Enclaves attestation documents (AWS Nitro Enclaves user guide, "Verifying the root of trust").

NitroTPM documents share the shell and the root, and attest something else: an instance, which its
operator can enter. They have a format of their own and are never accepted here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cloister.attestation.authenticate import Support
from cloister.attestation.certificates import (
    check_revocation,
    load_certificate,
    load_endorsements,
    refusing,
    verify_path,
)
from cloister.attestation.cose import Sign1, load_cbor
from cloister.attestation.evidence import AuthenticEvidence, Format
from cloister.attestation.roots import anchors
from cloister.errors import EvidenceError

__all__ = ["authenticate", "authenticate_document"]

_REQUIRED: Final = {"module_id", "digest", "timestamp", "certificate", "cabundle"}
_OPTIONAL: Final = {"public_key", "user_data", "nonce"}
_PCR_BYTES: Final = 48
_MAX_PCRS: Final = 32
_MAX_FIELD_BYTES: Final = 1024
_MAX_CABUNDLE: Final = 16
_MAX_MODULE_ID_CHARS: Final = 256
_SKEW: Final = timedelta(seconds=60)
_BOOT_PCRS: Final = ("pcr0", "pcr1", "pcr2")


def authenticate(raw: bytes, support: Support, *, at: datetime) -> AuthenticEvidence:
    """Authenticate a Nitro Enclaves document.

    Raises:
        EvidenceError: It is not genuine, or not an enclave's.
    """
    return authenticate_document(raw, support, at=at, format=Format.NITRO, pcrs_member="pcrs")


def authenticate_document(
    raw: bytes,
    support: Support,
    *,
    at: datetime,
    format: Format,  # noqa: A002 (RATS word)
    pcrs_member: str,
) -> AuthenticEvidence:
    """Authenticate a document whose PCRs stand under `pcrs_member`.

    Raises:
        EvidenceError: It is not genuine, or of the other kind.
    """
    # (1) Shape of the shell and of the contents.
    message = Sign1.parse(raw)
    document = _parse(message.unverified_payload, pcrs_member)
    # (2) The certificates lead to the AWS root at this time.
    endorsements = load_endorsements(support.endorsements)
    trusted = anchors("aws_nitro", support.trust_anchors)
    leaf = load_certificate(document["certificate"])
    bundle = [load_certificate(der) for der in document["cabundle"]]
    path = verify_path(leaf, bundle, trusted.certificates, at=at, what="certificate")
    revocation = check_revocation(path.chain, endorsements.crls, at=at)
    # (3) The document is signed by the leaf, within the leaf's life.
    message.verify(leaf.public_key())
    with refusing("timestamp"):
        issued_at = datetime.fromtimestamp(document["timestamp"] / 1000, UTC)
    if not leaf.not_valid_before_utc - _SKEW <= issued_at <= leaf.not_valid_after_utc:
        raise EvidenceError("timestamp: outside the life of the signing certificate (step: authenticate)")
    # (4) What it says. A debug enclave has zeros where its measurements should be.
    pcrs = {f"pcr{index}": value.hex() for index, value in sorted(document[pcrs_member].items())}
    debug = format is Format.NITRO and any(not pcrs.get(name, "").strip("0") for name in _BOOT_PCRS)
    fields = {name: document.get(name) for name in ("public_key", "user_data", "nonce")}
    return AuthenticEvidence(
        format=format,
        environment=trusted.environment,
        claims={"module_id": document["module_id"], "digest": document["digest"]}
        | pcrs
        | {name: value.hex() for name, value in fields.items() if value is not None},
        binding={name: (value,) for name, value in fields.items() if value is not None},
        debug=debug,
        issued_at=issued_at,
        not_before=path.not_before,
        not_after=path.not_after,
        checks=("COSE ES384 signature", "certificate path to the AWS Nitro root", "timestamp")
        + (("revocation",) if revocation else ()),
        not_checked=() if revocation else ("revocation: no list was given for every AWS certificate",),
    )


def _parse(payload: bytes, pcrs_member: str) -> dict[str, Any]:
    document = load_cbor(payload, "attestation document")
    if not isinstance(document, dict):
        raise EvidenceError("attestation document: not a map (step: parse)")
    if pcrs_member not in document:
        raise EvidenceError(
            f"{pcrs_member}: absent, so this is not a document of the named kind (step: parse)",
            hint="a NitroTPM document attests an instance, never an enclave; see --format",
        )
    required = _REQUIRED | {pcrs_member}
    if not required <= document.keys() <= required | _OPTIONAL:
        raise EvidenceError("attestation document: a member is missing or unknown (step: parse)")
    match document:
        case {
            "module_id": str() as module_id,
            "digest": "SHA384",
            "timestamp": int() as timestamp,
            "certificate": bytes(),
            "cabundle": [*bundle],
        } if (
            0 < len(module_id) <= _MAX_MODULE_ID_CHARS
            and timestamp > 0
            and not isinstance(timestamp, bool)
            and 0 < len(bundle) <= _MAX_CABUNDLE
            and all(isinstance(der, bytes) for der in bundle)
            and _pcrs_are_sound(document[pcrs_member])
            and all(_field_is_sound(document.get(name)) for name in _OPTIONAL)
        ):
            return document
        case _:
            raise EvidenceError("attestation document: a member is of the wrong form (step: parse)")


def _pcrs_are_sound(pcrs: Any) -> bool:
    return (
        isinstance(pcrs, dict)
        and 0 < len(pcrs) <= _MAX_PCRS
        and all(type(index) is int and 0 <= index < _MAX_PCRS for index in pcrs)
        and all(isinstance(value, bytes) and len(value) == _PCR_BYTES for value in pcrs.values())
    )


def _field_is_sound(value: Any) -> bool:
    return value is None or (isinstance(value, bytes) and len(value) <= _MAX_FIELD_BYTES)
