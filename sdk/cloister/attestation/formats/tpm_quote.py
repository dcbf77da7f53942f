"""TPM 2.0 quotes (TCG "TPM 2.0 Library", part 2: TPMS_ATTEST, TPMT_SIGNATURE), strictly parsed."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from cloister.attestation.reader import Reader
from cloister.errors import EvidenceError

__all__ = ["Attest", "Signature"]

_GENERATED: Final = 0xFF544347
_ATTEST_QUOTE: Final = 0x8018
_SHA256: Final = 0x000B
_SHA384: Final = 0x000C
RSASSA: Final = 0x0014
RSAPSS: Final = 0x0016
ECDSA: Final = 0x0018
_MAX_FIELD_BYTES: Final = 512
_MIN_RSA_BITS: Final = 2048
_HASHES: Final[Mapping[int, tuple[type[hashes.HashAlgorithm], str]]] = {
    _SHA256: (hashes.SHA256, "sha256"),
    _SHA384: (hashes.SHA384, "sha384"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attest:
    """A parsed TPMS_ATTEST of a quote."""

    raw: bytes
    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int
    bank: str
    selected: tuple[int, ...]
    pcr_digest: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Attest:
        """Read exactly one quote.

        Raises:
            EvidenceError: It is not a quote over one bank of SHA-256 or SHA-384.
        """
        reader = Reader(raw, "quote")
        if reader.big(4) != _GENERATED or reader.big(2) != _ATTEST_QUOTE:
            raise EvidenceError("quote: not made by a TPM, or of another type (step: parse)")
        reader.sized(2, limit=_MAX_FIELD_BYTES)  # the name of the signer, known from its certificate
        extra_data = reader.sized(2, limit=_MAX_FIELD_BYTES)
        clock, reset_count, restart_count, safe = reader.big(8), reader.big(4), reader.big(4), reader.big(1)
        firmware_version = reader.big(8)
        if reader.big(4) != 1:
            raise EvidenceError("quote: not over exactly one PCR bank (step: parse)")
        algorithm = reader.big(2)
        bitmap = reader.sized(1, limit=8)
        pcr_digest = reader.sized(2, limit=_MAX_FIELD_BYTES)
        reader.finish()
        if algorithm not in _HASHES:
            raise EvidenceError("quote: the PCR bank is neither SHA-256 nor SHA-384 (step: parse)")
        return cls(
            raw=raw,
            extra_data=extra_data,
            clock=clock,
            reset_count=reset_count,
            restart_count=restart_count,
            safe=safe == 1,
            firmware_version=firmware_version,
            bank=_HASHES[algorithm][1],
            selected=tuple(i for i in range(8 * len(bitmap)) if bitmap[i // 8] >> i % 8 & 1),
            pcr_digest=pcr_digest,
        )

    def require_pcrs(self, pcrs: Mapping[int, bytes], hash_name: str) -> None:
        """Show that these are the values of exactly the PCRs that were quoted.

        Raises:
            EvidenceError: One is missing, superfluous or different.
        """
        size = hashlib.new(self.bank).digest_size
        if tuple(sorted(pcrs)) != self.selected or any(len(value) != size for value in pcrs.values()):
            raise EvidenceError("pcrs: not those that were quoted (step: authenticate)")
        digest = hashlib.new(hash_name, b"".join(pcrs[index] for index in self.selected)).digest()
        if not hmac.compare_digest(digest, self.pcr_digest):
            raise EvidenceError("pcrs: a value differs from the quoted one (step: authenticate)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A TPMT_SIGNATURE; `value` is DER for ECDSA."""

    scheme: int
    hash_algorithm: type[hashes.HashAlgorithm]
    hash_name: str
    value: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Signature:
        """Read exactly one signature.

        Raises:
            EvidenceError: It is malformed or of an unknown scheme.
        """
        reader = Reader(raw, "TPM signature")
        scheme, algorithm = reader.big(2), reader.big(2)
        if algorithm not in _HASHES or scheme not in {RSASSA, RSAPSS, ECDSA}:
            raise EvidenceError("signature: of an unknown scheme (step: parse)")
        parts = [reader.sized(2, limit=_MAX_FIELD_BYTES) for _ in range(2 if scheme == ECDSA else 1)]
        reader.finish()
        value = parts[0]
        if scheme == ECDSA:
            value = utils.encode_dss_signature(*(int.from_bytes(part, "big") for part in parts))
        return cls.of(scheme, algorithm, value)

    @classmethod
    def of(cls, scheme: int, algorithm: int, value: bytes) -> Signature:
        """A signature whose scheme and hash (TPM_ALG_ID) are known from elsewhere."""
        hash_algorithm, hash_name = _HASHES[algorithm]
        return cls(scheme=scheme, hash_algorithm=hash_algorithm, hash_name=hash_name, value=value)

    def verify(self, key: object, message: bytes) -> None:
        """Verify under the attestation key.

        Raises:
            EvidenceError: The key does not fit the scheme, or the signature is not its.
        """
        algorithm = self.hash_algorithm()
        try:
            if self.scheme == ECDSA and isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(self.value, message, ec.ECDSA(algorithm))
            elif self.scheme != ECDSA and isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA_BITS:
                pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)
                key.verify(
                    self.value, message, pss if self.scheme == RSAPSS else padding.PKCS1v15(), algorithm
                )
            else:
                raise EvidenceError("signature: the attestation key is of another kind (step: authenticate)")
        except InvalidSignature:
            raise EvidenceError(
                "signature: the quote was altered or is another TPM's (step: authenticate)"
            ) from None
