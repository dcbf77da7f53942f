"""Certificates and revocation lists: read strictly, and paths validated by `cryptography`.

Extension policies say what attestation PKIs have in common: issuers are CAs that may sign
certificates, leaves are not CAs and may sign documents. AMD's chain has a form that the library's
verifier refuses; `sev_snp.py` has its own short check for it (ADR: amd-certificate-path).
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from cloister.errors import EvidenceError

__all__ = [
    "DEVELOPMENT_EXTENSION",
    "Endorsements",
    "Path",
    "check_revocation",
    "load_certificate",
    "load_certificates",
    "load_endorsements",
    "refusing",
    "require_valid_at",
    "verify_path",
]

DEVELOPMENT_EXTENSION: Final = x509.ObjectIdentifier("2.25.13661961832521162066")
"""Critical extension of development roots, so that no other software takes them for real either."""

MAX_CERTIFICATE_BYTES: Final = 8 * 1024
MAX_CRL_BYTES: Final = 512 * 1024
MAX_CERTIFICATES: Final = 32
_PEM_BLOCK: Final = re.compile(
    rb"-----BEGIN (CERTIFICATE|X509 CRL)-----\s[A-Za-z0-9+/=\s]{1,1000000}-----END \1-----"
)
_EAGER: Final = (
    "subject",
    "issuer",
    "extensions",
    "signature_hash_algorithm",
    "signature_algorithm_parameters",
    "not_valid_before_utc",
    "not_valid_after_utc",
)
_WARNINGS_LOCK: Final = threading.Lock()


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn what `cryptography` and parsing raise for bad input into one error that quotes nothing."""
    try:
        yield
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, OSError, RecursionError):
        raise EvidenceError(f"{what}: malformed (step: parse)") from None
    except (UnsupportedAlgorithm, x509.DuplicateExtension, x509.ExtensionNotFound, x509.InvalidVersion):
        raise EvidenceError(f"{what}: of an unsupported kind (step: parse)") from None
    except (InvalidSignature, VerificationError):
        raise EvidenceError(f"{what}: the signature does not verify (step: authenticate)") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsements:
    """What came beside the evidence, sorted by kind; nothing of it is trusted yet."""

    certificates: tuple[x509.Certificate, ...] = ()
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    other: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """A validated path, leaf first, and the time in which all of it is valid."""

    chain: tuple[x509.Certificate, ...]

    @property
    def not_before(self) -> datetime:
        """Latest start of validity in the path."""
        return max(certificate.not_valid_before_utc for certificate in self.chain)

    @property
    def not_after(self) -> datetime:
        """Earliest end of validity in the path."""
        return min(certificate.not_valid_after_utc for certificate in self.chain)


def load_certificate(der: bytes, *, max_bytes: int = MAX_CERTIFICATE_BYTES) -> x509.Certificate:
    """Read one DER certificate.

    Raises:
        EvidenceError: It is too large or malformed.
    """
    if len(der) > max_bytes:
        raise EvidenceError("certificate: too large (step: parse)")
    return _parsed(der) if len(der) <= MAX_CERTIFICATE_BYTES else _parse(der)


def _parse(der: bytes) -> x509.Certificate:
    # The library warns of serial number 0, which AMD's chip certificates have, and of odd names. It
    # parses on first use: what is malformed is refused here, once.
    with refusing("certificate"), _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        certificate = x509.load_der_x509_certificate(der)
        certificate.public_key()
        for name in _EAGER:
            getattr(certificate, name)
        # A BIT STRING with unused bits would be a second encoding of the same signature.
        if not der.endswith(b"\0" + certificate.signature):
            raise ValueError
    return certificate


_parsed: Final = lru_cache(maxsize=64)(_parse)
"""Issuers come again with every document. Only parsing is remembered, never trust."""


def load_certificates(items: Iterable[bytes]) -> list[x509.Certificate]:
    """Read certificates, each item DER or any number of PEM blocks.

    Raises:
        EvidenceError: An item is neither, or there are too many.
    """
    endorsements = load_endorsements(items)
    if endorsements.other:
        raise EvidenceError("certificate: neither DER nor PEM (step: parse)")
    return list(endorsements.certificates)


def load_endorsements(items: Iterable[bytes]) -> Endorsements:
    """Sort items into certificates, revocation lists and the rest.

    Raises:
        EvidenceError: Something that looks like PEM is malformed, or there is too much.
    """
    certificates: list[x509.Certificate] = []
    crls: list[x509.CertificateRevocationList] = []
    other: list[bytes] = []
    for item in items:
        if b"-----BEGIN " in item and b"\0" not in item.rstrip(b"\0"):  # a quote has PEM inside
            blocks = [(match[1], match[0]) for match in _PEM_BLOCK.finditer(item)]
            if not blocks or len(blocks) != item.count(b"-----BEGIN "):
                raise EvidenceError("certificate: malformed PEM (step: parse)")
            for kind, block in blocks:
                with refusing("certificate"):
                    if kind == b"CERTIFICATE":
                        certificates.append(load_certificate(_pem_body(block)))
                    else:
                        crls.append(x509.load_pem_x509_crl(block))
        else:
            _load_der(item, certificates, crls, other)
    if len(certificates) > MAX_CERTIFICATES or len(crls) > MAX_CERTIFICATES:
        raise EvidenceError("there are too many certificates (step: parse)")
    return Endorsements(certificates=tuple(certificates), crls=tuple(crls), other=tuple(other))


def _load_der(
    item: bytes,
    certificates: list[x509.Certificate],
    crls: list[x509.CertificateRevocationList],
    other: list[bytes],
) -> None:
    try:
        certificates.append(load_certificate(item))
    except EvidenceError:
        try:
            crls.append(x509.load_der_x509_crl(item[:MAX_CRL_BYTES]))
        except ValueError:
            other.append(item)


def _pem_body(block: bytes) -> bytes:
    import binascii  # noqa: PLC0415 (only PEM needs it)

    return binascii.a2b_base64(b"".join(block.split(b"-----")[2].split()), strict_mode=True)


def _require_issuer(_policy: Policy, _certificate: x509.Certificate, extension: Any) -> None:
    if not extension.ca:
        raise ValueError("not a CA")


def _require_signs_certificates(_policy: Policy, _certificate: x509.Certificate, extension: Any) -> None:
    if not extension.key_cert_sign:
        raise ValueError("may not sign certificates")


def _require_leaf(_policy: Policy, _certificate: x509.Certificate, extension: Any) -> None:
    if extension is not None and extension.ca:
        raise ValueError("a CA")


def _require_signs_documents(_policy: Policy, _certificate: x509.Certificate, extension: Any) -> None:
    # Without the extension a key is not restricted (RFC 5280 section 4.2.1.3).
    if extension is not None and not extension.digital_signature:
        raise ValueError("may not sign documents")


_CA_POLICY: Final = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.CRITICAL, _require_issuer)
    .require_present(x509.KeyUsage, Criticality.AGNOSTIC, _require_signs_certificates)
)
_LEAF_POLICY: Final = (
    ExtensionPolicy.permit_all()
    .may_be_present(x509.BasicConstraints, Criticality.AGNOSTIC, _require_leaf)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _require_signs_documents)
)


MAX_VALIDATED: Final = 32
_VALIDATED: Final[dict[tuple[Any, ...], Path]] = {}


def verify_path(
    leaf: x509.Certificate,
    untrusted: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    *,
    at: datetime,
    what: str,
) -> Path:
    """Find and validate a path from a leaf to an anchor at a time (RFC 5280 section 6).

    A path that was validated before is taken again for exactly the same certificates and anchors, while all
    of it is valid: of what the validation looks at, only the time can have changed.

    Raises:
        EvidenceError: There is none.
    """
    key = (leaf, tuple(untrusted), tuple(anchors))
    known = _VALIDATED.get(key)
    if known is not None and known.not_before <= at <= known.not_after:
        return known
    path = _validate(leaf, untrusted, anchors, at=at, what=what)
    if len(_VALIDATED) >= MAX_VALIDATED:
        _VALIDATED.clear()
    _VALIDATED[key] = path
    return path


def _validate(
    leaf: x509.Certificate,
    untrusted: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    *,
    at: datetime,
    what: str,
) -> Path:
    verifier = (
        PolicyBuilder()
        .store(Store(list(anchors)))
        .time(at.astimezone(UTC))
        .extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
        .build_client_verifier()
    )
    try:
        with refusing(what):
            return Path(chain=tuple(verifier.verify(leaf, list(untrusted)).chain))
    except EvidenceError:
        require_valid_at(leaf, at, what)
        raise EvidenceError(
            f"{what}: the certificates reach no trust anchor at this time (step: authenticate)",
            hint="an issuer is expired, altered or missing, or the evidence is another vendor's",
        ) from None


def require_valid_at(certificate: x509.Certificate, at: datetime, what: str) -> None:
    """Refuse a certificate outside its life.

    Raises:
        EvidenceError: It is expired or not yet valid.
    """
    if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
        raise EvidenceError(
            f"{what}: expired or not yet valid at this time (step: validity)",
            hint="ask for fresh evidence, and check both clocks",
        )


def check_revocation(
    chain: Sequence[x509.Certificate], crls: Sequence[x509.CertificateRevocationList], *, at: datetime
) -> bool:
    """Look up every certificate of a path, leaf first, in its issuer's revocation list.

    Returns:
        Whether there was a list for every certificate but the anchor.

    Raises:
        EvidenceError: A certificate is revoked, or a list is stale or not signed by its issuer.
    """
    complete = True
    for certificate, issuer in pairwise(chain):
        with refusing("revocation list"):
            lists = [crl for crl in crls if crl.issuer == issuer.subject]
        complete &= bool(lists)
        for crl in lists:
            with refusing("revocation list"):
                key = issuer.public_key()
                if not crl.is_signature_valid(_as_issuer(key)):
                    raise EvidenceError("revocation list: not signed by its issuer (step: revocation)")
                next_update = crl.next_update_utc
                if next_update is None or not crl.last_update_utc <= at <= next_update:
                    raise EvidenceError(
                        "revocation list: stale or not yet valid (step: revocation)",
                        hint="let the host staple fresh lists: `cloister evidence fetch`",
                    )
                if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
                    raise EvidenceError("certificate: revoked by its issuer (step: revocation)")
    return complete


def _as_issuer(key: Any) -> CertificateIssuerPublicKeyTypes:
    return key  # type: ignore[no-any-return]
