"""TPM 2.0 quotes whose key is certified (Google Cloud), vouched for by a TEE (Azure), or pinned."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from cloister.attestation import der
from cloister.attestation.authenticate import Support
from cloister.attestation.certificates import check_revocation, load_endorsements, refusing, verify_path
from cloister.attestation.evidence import AuthenticEvidence, Environment, Format
from cloister.attestation.formats import azure_hcl
from cloister.attestation.formats.tpm_container import Container
from cloister.attestation.formats.tpm_quote import Attest
from cloister.attestation.roots import anchors
from cloister.errors import EvidenceError

__all__ = ["Voucher", "authenticate", "authenticate_container"]

_PUBLIC_KEY: Final = b"-----BEGIN PUBLIC KEY-----"
_GOOGLE_INSTANCE: Final = "1.3.6.1.4.1.11129.2.1.21"
_FOREVER: Final = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))


@dataclass(frozen=True, slots=True, kw_only=True)
class Voucher:
    """The attestation key, and what vouches for it."""

    key: object
    environment: Environment
    claims: dict[str, Any]
    checks: tuple[str, ...]
    not_checked: tuple[str, ...] = ()
    not_before: datetime = field(default=_FOREVER[0])
    not_after: datetime = field(default=_FOREVER[1])
    debug: bool = False


def authenticate(raw: bytes, support: Support, *, at: datetime) -> AuthenticEvidence:
    """Authenticate a quote.

    Raises:
        EvidenceError: It is not genuine, or nothing vouches for its key.
    """
    container = Container.parse(raw)
    endorsements = load_endorsements(support.endorsements)
    blobs = [blob for blob in endorsements.other if blob.startswith(azure_hcl.MAGIC)]
    pinned = _pinned_keys(support.trust_anchors or ())
    if container.hcl_report is not None or blobs:
        from cloister.attestation.formats.azure_vtpm import hardware_voucher  # noqa: PLC0415 (Azure only)

        voucher = hardware_voucher(container, support, at=at)
    elif container.nitro_document is not None:
        voucher = _nitro_voucher(container, support, at=at)
    elif pinned:
        voucher = _pinned_voucher(container, pinned)
    else:
        voucher = _certified(container, endorsements, support, at=at)
    return authenticate_container(container, voucher, format=Format.TPM)


def authenticate_container(
    container: Container,
    voucher: Voucher,
    *,
    format: Format,  # noqa: A002 (RATS word)
) -> AuthenticEvidence:
    """Authenticate a quote under a key that is vouched for.

    Raises:
        EvidenceError: The signature or a PCR does not verify.
    """
    # (1) The quote is signed by that key.
    container.signature.verify(voucher.key, container.message)
    if container.attestation_key is not None and _spki(container.attestation_key) != _spki(voucher.key):
        raise EvidenceError("attestation key: not the certified one (step: authenticate)")
    # (2) The PCR values are the quoted ones.
    quote = Attest.parse(container.message)
    quote.require_pcrs(container.pcrs, container.signature.hash_name)
    if container.nonce is not None and container.nonce != quote.extra_data:
        raise EvidenceError("nonce: the container names another than was quoted (step: authenticate)")
    return AuthenticEvidence(
        format=format,
        environment=voucher.environment,
        claims=voucher.claims
        | {f"pcr{index}": value.hex() for index, value in sorted(container.pcrs.items())}
        | {
            "pcr_bank": quote.bank,
            "extra_data": quote.extra_data.hex(),
            "firmware_version": quote.firmware_version,
            "reset_count": quote.reset_count,
            "restart_count": quote.restart_count,
            "clock": quote.clock,
            "safe": quote.safe,
        },
        binding={"extra_data": (quote.extra_data,)} if quote.extra_data else {},
        debug=voucher.debug,
        not_before=voucher.not_before,
        not_after=voucher.not_after,
        checks=(*voucher.checks, "signature of the quote", "PCR values"),
        not_checked=(
            *voucher.not_checked,
            "time: a quote carries none; freshness rests on the nonce",
            "debug: a quote does not say; boot policy is in the PCRs",
        ),
    )


def _certified(container: Container, endorsements: Any, support: Support, *, at: datetime) -> Voucher:
    """The key of an AK certificate on a path to Google's EK/AK root."""
    trusted = anchors("google_ek_ak", support.trust_anchors)
    certificates = (*container.certificates, *endorsements.certificates)
    leaves = [leaf for leaf in certificates if not _is_authority(leaf)]
    if not leaves:
        raise EvidenceError(
            "attestation key: nothing vouches for it (step: authenticate)",
            hint="give its certificate chain, Azure's HCL report with the VCEK, or pin the key as anchor",
        )
    path = verify_path(leaves[0], certificates, trusted.certificates, at=at, what="AK certificate")
    if not set(container.certificates) <= set(path.chain):
        raise EvidenceError("AK certificate chain: a certificate is not on the path (step: authenticate)")
    with refusing("AK certificate"):
        key = leaves[0].public_key()
    revocation = check_revocation(path.chain, endorsements.crls, at=at)
    return Voucher(
        key=key,
        environment=trusted.environment,
        claims={"ak": "certificate"} | _google_instance(leaves[0]),
        checks=("certificate path of the AK to the EK/AK root",) + (("revocation",) if revocation else ()),
        not_checked=() if revocation else ("revocation: no list was given for every certificate",),
        not_before=path.not_before,
        not_after=path.not_after,
    )


def _nitro_voucher(container: Container, support: Support, *, at: datetime) -> Voucher:
    """The key that a NitroTPM document names, over the same PCRs and nonce."""
    from cloister.attestation.formats import nitro_tpm  # noqa: PLC0415 (AWS only)

    document = nitro_tpm.authenticate(container.nitro_document or b"", support, at=at)
    with refusing("attestation key"):
        (nonce,) = document.binding["nonce"]
        (point,) = document.binding["public_key"]
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    if nonce != container.nonce:
        raise EvidenceError("nonce: the NitroTPM document answers another (step: authenticate)")
    if any(document.claims.get(f"pcr{index}") != value.hex() for index, value in container.pcrs.items()):
        raise EvidenceError("pcrs: the NitroTPM document has other values (step: authenticate)")
    return Voucher(
        key=key,
        environment=document.environment,
        claims={"ak": "nitro-tpm", "module_id": document.claims["module_id"]},
        checks=(*document.checks, "attestation key named by the NitroTPM document"),
        not_checked=document.not_checked,
        not_before=document.not_before,
        not_after=document.not_after,
    )


def _is_authority(certificate: x509.Certificate) -> bool:
    with refusing("AK certificate"):
        return any(
            isinstance(extension.value, x509.BasicConstraints) and extension.value.ca
            for extension in certificate.extensions
        )


def _google_instance(leaf: x509.Certificate) -> dict[str, Any]:
    """The instance that Google names in an AK certificate (extension 1.3.6.1.4.1.11129.2.1.21)."""
    for extension in leaf.extensions:
        if extension.oid.dotted_string == _GOOGLE_INSTANCE and isinstance(
            extension.value, x509.UnrecognizedExtension
        ):
            values = [value for _, value in der.items(der.single(extension.value.value, der.SEQUENCE))]
            with refusing("AK certificate"):
                zone, number, project, instance, name = values[:5]
                return {
                    "gcp": {
                        "zone": zone.decode(),
                        "project_number": der.integer(number),
                        "project_id": project.decode(),
                        "instance_id": der.integer(instance),
                        "instance_name": name.decode(),
                    }
                }
    return {}


def _pinned_keys(trust_anchors: tuple[bytes, ...]) -> list[object]:
    keys: list[object] = []
    for anchor in trust_anchors:
        if anchor.startswith(azure_hcl.MAGIC):
            keys.append(azure_hcl.HclReport.parse(anchor).attestation_key)
        elif anchor.lstrip().startswith(_PUBLIC_KEY):
            with refusing("trust anchor"):
                keys.append(load_pem_public_key(anchor))
    return keys


def _pinned_voucher(container: Container, pinned: list[object]) -> Voucher:
    if container.certificates or len(pinned) != 1:
        raise EvidenceError(
            "trust anchor: pin exactly one attestation key, for evidence without certificates",
            hint="drop the certificates, or trust their root instead",
        )
    return Voucher(
        key=pinned[0],
        environment="test",
        claims={"ak": "pinned"},
        checks=("attestation key is the one the caller pinned",),
        not_checked=("TPM: only the caller vouches that the key is in one",),
    )


def _spki(key: object) -> bytes:
    if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        raise EvidenceError("attestation key: neither RSA nor elliptic curve (step: authenticate)")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
