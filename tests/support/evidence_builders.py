"""Evidence made under test roots, for what no collected document shows: other layouts, and attacks."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
LIFE = (AT - timedelta(hours=1), AT + timedelta(hours=2))
LONG = (AT - timedelta(days=365), AT + timedelta(days=3650))

CertificateAndKey = tuple[x509.Certificate, Any]


def name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def key_usage(*, signs: bool = False, issues: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issues,
        crl_sign=issues,
        encipher_only=False,
        decipher_only=False,
    )


def certificate(
    subject: str,
    key: Any,
    issuer: CertificateAndKey | None = None,
    *,
    authority: bool,
    usage: x509.KeyUsage | None = None,
    life: tuple[datetime, datetime] = LONG,
    extensions: Mapping[str, bytes] | None = None,
    critical: str = "",
    path_length: int | None = None,
    bare: bool = False,
    pss: bool = False,
    extra: Sequence[x509.ExtensionType] = (),
) -> x509.Certificate:
    """One certificate, for a private or public key; without an issuer it signs itself."""
    issuer_name, issuer_key = (issuer[0].subject, issuer[1]) if issuer else (name(subject), key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(issuer_name)
        .public_key(key.public_key() if hasattr(key, "public_key") else key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(life[0])
        .not_valid_after(life[1])
    )
    if not bare:
        builder = builder.add_extension(
            x509.BasicConstraints(ca=authority, path_length=path_length), critical=True
        ).add_extension(usage or key_usage(signs=not authority, issues=authority), critical=True)
    for oid, value in (extensions or {}).items():
        unrecognized = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
        builder = builder.add_extension(unrecognized, critical=oid == critical)
    for extension in extra:
        builder = builder.add_extension(extension, critical=False)
    if pss:
        scheme = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
        return builder.sign(issuer_key, hashes.SHA384(), rsa_padding=scheme)
    return builder.sign(
        issuer_key, hashes.SHA384() if isinstance(issuer_key, ec.EllipticCurvePrivateKey) else hashes.SHA256()
    )


def der(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(Encoding.DER)


def crl(issuer: CertificateAndKey, *revoked: x509.Certificate, next_update: datetime = LONG[1]) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer[0].subject)
        .last_update(LIFE[0])
        .next_update(next_update)
    )
    for cert in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(cert.serial_number).revocation_date(LIFE[0])
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer[1], hashes.SHA384()).public_bytes(Encoding.DER)


# --- AWS Nitro -----------------------------------------------------------------------------------


class NitroIssuer:
    """A hypervisor under a test root: root, one intermediate, and a leaf for each document."""

    def __init__(self, **intermediate: Any) -> None:
        self.root_key = ec.generate_private_key(ec.SECP384R1())
        self.root = certificate("aws.nitro-enclaves", self.root_key, authority=True)
        self.middle_key = ec.generate_private_key(ec.SECP384R1())
        arguments: dict[str, Any] = {"authority": True, "life": LIFE} | intermediate
        self.middle = certificate(
            "zonal.aws.nitro-enclaves", self.middle_key, (self.root, self.root_key), **arguments
        )

    def document(
        self,
        *,
        members: Mapping[str, Any] | None = None,
        leaf: Mapping[str, Any] | None = None,
        protected: Any = None,
        unprotected: Any = None,
        curve: ec.EllipticCurve | None = None,
        cabundle: list[bytes] | None = None,
    ) -> bytes:
        """A signed document; every argument changes one thing from a good one."""
        leaf_key = ec.generate_private_key(curve or ec.SECP384R1())
        arguments: dict[str, Any] = {"authority": False, "life": LIFE} | dict(leaf or {})
        leaf_certificate = certificate("enclave.aws", leaf_key, (self.middle, self.middle_key), **arguments)
        payload: dict[str, Any] = {
            "module_id": "i-1-enc1",
            "digest": "SHA384",
            "timestamp": int(AT.timestamp() * 1000),
            "pcrs": {index: bytes([index + 1]) * 48 for index in range(16)},
            "certificate": der(leaf_certificate),
            "cabundle": cabundle or [der(self.root), der(self.middle)],
            "public_key": None,
            "user_data": None,
            "nonce": None,
        }
        payload |= members or {}
        payload = {key: value for key, value in payload.items() if value is not ...}
        header = cbor2.dumps({1: -35} if protected is None else protected)
        body = cbor2.dumps(payload)
        to_sign = cbor2.dumps(["Signature1", header, b"", body])
        size = (leaf_key.curve.key_size + 7) // 8
        r, s = utils.decode_dss_signature(leaf_key.sign(to_sign, ec.ECDSA(hashes.SHA384())))
        signature = r.to_bytes(size, "big") + s.to_bytes(size, "big")
        return cbor2.dumps([header, unprotected or {}, body, signature])


# --- AMD SEV-SNP ---------------------------------------------------------------------------------

AMD = "1.3.6.1.4.1.3704.1"


@cache
def _rsa(_which: str, bits: int = 4096) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


class AmdIssuer:
    """AMD's hierarchy under a test root, for any product line."""

    def __init__(self, product: str = "Turin", **ask: Any) -> None:
        self.product = product
        self.ark_key, self.ask_key = _rsa("ark"), _rsa("ask")
        self.ark = certificate(f"ARK-{product}", self.ark_key, authority=True, pss=True)
        arguments: dict[str, Any] = {"authority": True, "pss": True} | ask
        self.ask = certificate(f"SEV-{product}", self.ask_key, (self.ark, self.ark_key), **arguments)
        self.chip_key = ec.generate_private_key(ec.SECP384R1())

    def chip(
        self, *, tcb: Mapping[int, int], hardware_id: bytes | None, subject: str = "SEV-VCEK", **changes: Any
    ) -> bytes:
        """A chip certificate; `tcb` maps the last arc of AMD's extension to its value."""
        product = self.product.encode()
        extensions = {f"{AMD}.2": b"\x16" + bytes([len(product)]) + product}
        extensions |= {f"{AMD}.3.{arc}": integer(value) for arc, value in tcb.items()}
        if hardware_id is not None:
            extensions[f"{AMD}.4"] = hardware_id
        arguments: dict[str, Any] = {"authority": False, "bare": True, "pss": True} | changes
        arguments["extensions"] = extensions | arguments.get("extensions", {})
        return der(certificate(subject, self.chip_key, (self.ask, self.ask_key), **arguments))

    def report(
        self,
        *,
        version: int = 5,
        cpuid: tuple[int, int] = (0x1A, 0x02),
        tcb: bytes = bytes([1, 2, 0, 4, 0, 0, 0, 72]),
        chip_id: bytes = b"\x11" * 8,
        key_info: int = 0,
        policy: int = 0x30000,
        report_data: bytes = b"",
        vmpl: int = 0,
    ) -> bytes:
        """A signed report."""
        raw = bytearray(0x2A0)
        raw[0x00:0x04] = version.to_bytes(4, "little")
        raw[0x08:0x10] = policy.to_bytes(8, "little")
        raw[0x30] = vmpl
        raw[0x34] = 1
        raw[0x48:0x4C] = key_info.to_bytes(4, "little")
        raw[0x50:0x90] = report_data.ljust(64, b"\0")
        raw[0x90:0xC0] = b"\x22" * 48
        for offset in (0x38, 0x180, 0x1E0, 0x1F0):
            raw[offset : offset + 8] = tcb
        raw[0x188:0x18A] = bytes(cpuid)
        raw[0x1A0:0x1E0] = chip_id.ljust(64, b"\0")
        signature = self.chip_key.sign(bytes(raw), ec.ECDSA(hashes.SHA384()))
        r, s = (value.to_bytes(72, "little") for value in utils.decode_dss_signature(signature))
        return bytes(raw) + (r + s).ljust(512, b"\0")


def integer(value: int) -> bytes:
    contents = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return b"\x02" + bytes([len(contents)]) + contents


# --- Azure ---------------------------------------------------------------------------------------


def hcl_runtime(key: rsa.RSAPublicKey) -> bytes:
    """The JSON in which Azure's paravisor names the attestation key of its TPM."""
    numbers = key.public_numbers()
    jwk = {"kid": "HCLAkPub", "key_ops": ["sign"], "kty": "RSA", "e": "AQAB"}
    jwk["n"] = b64url(numbers.n.to_bytes(256, "big"))
    return json.dumps({"keys": [jwk], "vm-configuration": {"secure-boot": True}}).encode()


def hcl_report(kind: int, hardware: bytes, runtime: bytes) -> bytes:
    """Azure's HCL report, as it lies in the TPM; kind 2 is SEV-SNP, 4 is TDX."""
    tail = b"".join(value.to_bytes(4, "little") for value in (20 + len(runtime), 1, kind, 1, len(runtime)))
    size = 32 + 1184 + len(tail) + len(runtime)
    head = b"HCLA" + b"".join(value.to_bytes(4, "little") for value in (2, size, 2, 0))
    return head + bytes(12) + hardware.ljust(1184, b"\0") + tail + runtime


# --- tokens --------------------------------------------------------------------------------------


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenIssuer:
    """An attestation service with one RSA key, and a PKI of its own."""

    def __init__(self, bits: int = 2048) -> None:
        self.key = _rsa("token", bits)
        numbers = self.key.public_key().public_numbers()
        self.jwk = {
            "kty": "RSA",
            "kid": "k1",
            "n": b64url(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")),
            "e": "AQAB",
        }
        self.root_key = _rsa("token-root", 2048)
        self.root = certificate("Confidential Space Root CA", self.root_key, authority=True)

    @property
    def jwks(self) -> bytes:
        return json.dumps({"keys": [self.jwk]}).encode()

    def leaf(self, **changes: Any) -> x509.Certificate:
        arguments: dict[str, Any] = {"authority": False} | changes
        return certificate("signer", self.key, (self.root, self.root_key), **arguments)

    def token(self, claims: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> bytes:
        """A token signed with RS256, whatever its header says."""
        head = {"alg": "RS256", "kid": "k1", "typ": "JWT"} | dict(header or {})
        signed = f"{b64url(json.dumps(head).encode())}.{b64url(json.dumps(dict(claims)).encode())}".encode()
        signature = self.key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return signed + b"." + b64url(signature).encode()

    def pki_token(self, claims: Mapping[str, Any]) -> bytes:
        """A token with its chain to the root in `x5c`."""
        chain = [base64.b64encode(der(cert)).decode() for cert in (self.leaf(), self.root)]
        return self.token(claims, {"x5c": chain})

    def hs256_with_the_public_key(self, claims: Mapping[str, Any]) -> bytes:
        head = {"alg": "HS256", "kid": "k1", "typ": "JWT"}
        signed = f"{b64url(json.dumps(head).encode())}.{b64url(json.dumps(dict(claims)).encode())}".encode()
        pem = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        mac = hmac.HMAC(pem, hashes.SHA256())
        mac.update(signed)
        return signed + b"." + b64url(mac.finalize()).encode()


def confidential_space_claims(**changes: Any) -> dict[str, Any]:
    now = int(AT.timestamp())
    claims = {
        "iss": "https://confidentialcomputing.googleapis.com",
        "aud": "https://cloister.example",
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
        "eat_nonce": ["n" * 43],
        "hwmodel": "GCP_INTEL_TDX",
        "swname": "CONFIDENTIAL_SPACE",
        "dbgstat": "disabled-since-boot",
        "secboot": True,
        "submods": {"container": {"image_digest": "sha256:00"}},
    }
    return {key: value for key, value in (claims | changes).items() if value is not ...}


def maa_claims(**changes: Any) -> dict[str, Any]:
    now = int(AT.timestamp())
    claims = {
        "iss": "https://shareduks.uks.attest.azure.net",
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
        "x-ms-attestation-type": "sevsnpvm",
        "x-ms-sevsnpvm-is-debuggable": False,
        "x-ms-sevsnpvm-launchmeasurement": "00",
        "x-ms-runtime": {"client-payload": {"nonce": base64.b64encode(b"n" * 43).decode()}},
    }
    return {key: value for key, value in (claims | changes).items() if value is not ...}
