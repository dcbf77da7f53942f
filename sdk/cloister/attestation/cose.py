"""COSE_Sign1 with ES384 (RFC 9052 section 4.2): the shell of AWS attestation documents."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from cloister.errors import EvidenceError

__all__ = ["Sign1", "load_cbor"]

_ES384: Final = {1: -35}
_SIGN1_TAG: Final = 18
_SCALAR_BYTES: Final = 48
_MAX_DEPTH: Final = 6


def load_cbor(raw: bytes, what: str) -> Any:
    """Decode exactly one CBOR item, definite or indefinite, without duplicate keys.

    Raises:
        EvidenceError: It is malformed, nests too deeply, or something follows it.
    """
    stream = io.BytesIO(raw)
    try:
        value = cbor2.load(
            stream,
            max_depth=_MAX_DEPTH,
            allow_duplicate_keys=False,
        )
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError, MemoryError, RecursionError):
        raise EvidenceError(f"{what}: not well-formed CBOR (step: parse)") from None
    if stream.read(1):
        raise EvidenceError(f"{what}: bytes follow the document (step: parse)")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign1:
    """A COSE_Sign1 message whose signature is not verified yet."""

    protected: bytes
    unverified_payload: bytes
    signature: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Sign1:
        """Read the message, tagged or not.

        Raises:
            EvidenceError: It is not COSE_Sign1 with ES384. COSE algorithm -1, which emulators use
                for unsigned documents, is refused here.
        """
        message = load_cbor(raw, "COSE_Sign1")
        if isinstance(message, cbor2.CBORTag) and message.tag == _SIGN1_TAG:
            message = message.value
        match message:
            case [bytes() as protected, {**unprotected}, bytes() as payload, bytes() as signature] if (
                not unprotected
            ):
                pass
            case _:
                raise EvidenceError("COSE_Sign1: not of the expected shape (step: parse)")
        headers = load_cbor(protected, "COSE protected header")
        if headers != _ES384:
            raise EvidenceError(
                "COSE algorithm: only ES384 is accepted (step: parse)",
                hint="emulated enclaves sign nothing; use the simulated attester for development",
            )
        return cls(protected=protected, unverified_payload=payload, signature=signature)

    def verify(self, key: object) -> bytes:
        """Verify the signature and return the payload.

        Raises:
            EvidenceError: The key is not P-384 or the signature is not its.
        """
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
            raise EvidenceError("signature: the signing key is not P-384 (step: authenticate)")
        if len(self.signature) != 2 * _SCALAR_BYTES:
            raise EvidenceError("signature: not 96 bytes (step: parse)")
        r, s = (
            int.from_bytes(half, "big")
            for half in (self.signature[:_SCALAR_BYTES], self.signature[_SCALAR_BYTES:])
        )
        signed = cbor2.dumps(["Signature1", self.protected, b"", self.unverified_payload])
        try:
            key.verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA384()))
        except InvalidSignature:
            raise EvidenceError(
                "signature: the document was altered or not made by its certificate (step: authenticate)"
            ) from None
        return self.unverified_payload
