"""Intel's DCAP hierarchy under a test root: PCK, quoting enclave, quotes and PCS collateral."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support import evidence_builders as make

SGX = "1.2.840.113741.1.13.1"
FMSPC = "00906ed50000"
COMPONENTS = (2,) * 16
PCE_SVN = 11
_INTEL_QE = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_QE_SIGNER = b"\x44" * 32
_TD_BODY_BYTES = 584


def tlv(tag: int, *contents: bytes) -> bytes:
    body = b"".join(contents)
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    length = bytes([len(body)]) if len(body) < 0x80 else bytes([0x80 | len(size)]) + size
    return bytes([tag]) + length + body


def oid(dotted: str) -> bytes:
    arcs = [int(arc) for arc in dotted.split(".")]
    encoded = b""
    for arc in (40 * arcs[0] + arcs[1], *arcs[2:]):
        septets = [arc & 0x7F]
        while arc := arc >> 7:
            septets.append(0x80 | arc & 0x7F)
        encoded += bytes(reversed(septets))
    return tlv(6, encoded)


def entry(dotted: str, value: bytes) -> bytes:
    return tlv(0x30, oid(dotted), value)


def raw_signature(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    pair = utils.decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return b"".join(value.to_bytes(32, "big") for value in pair)


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


class IntelIssuer:
    """One platform, its quoting enclave, and what Intel publishes about them."""

    def __init__(self) -> None:
        self.root_key, self.platform_key, self.pck_key, self.tcb_key = (
            ec.generate_private_key(ec.SECP256R1()) for _ in range(4)
        )
        self.attestation_key = ec.generate_private_key(ec.SECP256R1())
        self.root = make.certificate("Intel SGX Root CA", self.root_key, authority=True)
        root = (self.root, self.root_key)
        self.platform = make.certificate("Intel SGX PCK Platform CA", self.platform_key, root, authority=True)
        self.pck = make.certificate(
            "Intel SGX PCK Certificate",
            self.pck_key,
            (self.platform, self.platform_key),
            authority=False,
            extensions={SGX: self._platform_extension()},
        )
        self.tcb_signer = make.certificate("Intel SGX TCB Signing", self.tcb_key, root, authority=False)

    def _platform_extension(self) -> bytes:
        levels = [entry(f"{SGX}.2.{index}", make.integer(svn)) for index, svn in enumerate(COMPONENTS, 1)]
        levels.append(entry(f"{SGX}.2.17", make.integer(PCE_SVN)))
        levels.append(entry(f"{SGX}.2.18", tlv(4, bytes(COMPONENTS))))
        return tlv(
            0x30,
            entry(f"{SGX}.1", tlv(4, b"\x01" * 16)),
            entry(f"{SGX}.2", tlv(0x30, *levels)),
            entry(f"{SGX}.3", tlv(4, bytes(2))),
            entry(f"{SGX}.4", tlv(4, bytes.fromhex(FMSPC))),
        )

    def quote(self, report_data: bytes, *, version: int = 4, attributes: bytes = bytes(8)) -> bytes:
        """A TDX quote with its PCK chain."""
        measurements = b"".join(bytes([0x50 + index]) * 48 for index in range(8))
        body = bytes([5, 0, 2] + [0] * 13) + bytes(48 + 48 + 8) + attributes + bytes(8) + measurements
        body += report_data.ljust(64, b"\0")
        header = version.to_bytes(2, "little") + b"\2\0" + (0x81).to_bytes(4, "little") + bytes(4)
        header += _INTEL_QE + bytes(20)
        if version >= 5:
            header += (2).to_bytes(2, "little") + len(body).to_bytes(4, "little")
        return self._sealed(header + body, nested=True)

    def sgx_quote(self, report_data: bytes, *, attributes: bytes = b"\x05" + bytes(15)) -> bytes:
        """An SGX quote, version 3."""
        body = _sgx_report(
            attributes=attributes, signer=b"\x66" * 32, product=7, svn=3, report_data=report_data
        )
        header = b"\3\0\2\0" + bytes(8) + _INTEL_QE + bytes(20)
        return self._sealed(header + body, nested=False)

    def _sealed(self, signed: bytes, *, nested: bool) -> bytes:
        key, authentication = point(self.attestation_key), bytes(range(32))
        qe_report = _sgx_report(
            attributes=b"\x11" + bytes(15),
            signer=_QE_SIGNER,
            product=2,
            svn=6,
            report_data=hashlib.sha256(key + authentication).digest(),
        )
        chain = b"".join(cert.public_bytes(Encoding.PEM) for cert in (self.pck, self.platform, self.root))
        data = qe_report + raw_signature(self.pck_key, qe_report)
        data += len(authentication).to_bytes(2, "little") + authentication
        data += (5).to_bytes(2, "little") + len(chain).to_bytes(4, "little") + chain
        if nested:
            data = (6).to_bytes(2, "little") + len(data).to_bytes(4, "little") + data
        section = raw_signature(self.attestation_key, signed) + key + data
        return signed + len(section).to_bytes(4, "little") + section

    # --- what Intel publishes ---

    def answers(self, life: tuple[datetime, datetime] | None = None, **info: Any) -> dict[str, Any]:
        """Bodies and headers of Intel's PCS, by the end of the address."""
        chain = b"".join(cert.public_bytes(Encoding.PEM) for cert in (self.tcb_signer, self.root)).decode()
        crl_chain = b"".join(cert.public_bytes(Encoding.PEM) for cert in (self.platform, self.root)).decode()
        return {
            "/tcb": (self._signed("tcbInfo", self.tcb_info(life) | info), {"tcb-info-issuer-chain": chain}),
            "/qe/identity": (
                self._signed("enclaveIdentity", self.qe_identity(life)),
                {"sgx-enclave-identity-issuer-chain": chain},
            ),
            "/pckcrl": (
                make.crl((self.platform, self.platform_key)),
                {"sgx-pck-crl-issuer-chain": crl_chain},
            ),
            "/IntelSGXRootCA.der": (make.crl((self.root, self.root_key)), {}),
        }

    def get(self, address: str) -> tuple[bytes, Mapping[str, str]]:
        """Answer as Intel's PCS does."""
        path = address.partition("?")[0]
        return next(answer for end, answer in self.answers().items() if path.endswith(end))

    def sgx_collateral_v2(self, **level: int) -> dict[str, str]:
        """Collateral for SGX with TCB info of version 2."""
        chain = b"".join(cert.public_bytes(Encoding.PEM) for cert in (self.tcb_signer, self.root)).decode()
        tcb = {f"sgxtcbcomp{index:02}svn": svn for index, svn in enumerate(COMPONENTS, 1)}
        info = {name: value for name, value in self.tcb_info().items() if not name.startswith(("id", "tdx"))}
        info |= {"version": 2}
        info["tcbLevels"] = [info["tcbLevels"][0] | {"tcb": tcb | {"pcesvn": PCE_SVN} | level}]
        identity = self.qe_identity() | {"id": "QE"}
        return {
            "tcb_info": self._signed("tcbInfo", info).decode(),
            "tcb_info_issuer_chain": chain,
            "qe_identity": self._signed("enclaveIdentity", identity).decode(),
            "qe_identity_issuer_chain": chain,
            "root_ca_crl": make.crl((self.root, self.root_key)).hex(),
            "pck_crl": make.crl((self.platform, self.platform_key)).hex(),
        }

    def _signed(self, member: str, body: Mapping[str, Any]) -> bytes:
        text = json.dumps(body, separators=(",", ":"))
        signature = raw_signature(self.tcb_key, text.encode()).hex()
        return f'{{"{member}":{text},"signature":"{signature}"}}'.encode()

    def tcb_info(self, life: tuple[datetime, datetime] | None = None) -> dict[str, Any]:
        module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
        components = [{"svn": svn} for svn in COMPONENTS]
        tdx = [{"svn": svn} for svn in (5, 0, 2, *(0,) * 13)]
        return {
            "id": "TDX",
            "version": 3,
            **_life(life),
            "fmspc": FMSPC.upper(),
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": 17,
            "tdxModule": module,
            "tdxModuleIdentities": [],
            "tcbLevels": [
                {
                    "tcb": {"sgxtcbcomponents": components, "pcesvn": PCE_SVN, "tdxtcbcomponents": tdx},
                    "tcbDate": "2026-03-13T00:00:00Z",
                    "tcbStatus": "UpToDate",
                }
            ],
        }

    def qe_identity(self, life: tuple[datetime, datetime] | None = None) -> dict[str, Any]:
        return {
            "id": "TD_QE",
            "version": 2,
            **_life(life),
            "tcbEvaluationDataNumber": 17,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11" + "00" * 15,
            "attributesMask": "FB" + "FF" * 7 + "00" * 8,
            "mrsigner": _QE_SIGNER.hex().upper(),
            "isvprodid": 2,
            "tcbLevels": [{"tcb": {"isvsvn": 4}, "tcbDate": "2026-03-13T00:00:00Z", "tcbStatus": "UpToDate"}],
        }


def _life(life: tuple[datetime, datetime] | None) -> dict[str, str]:
    return {
        name: moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        for name, moment in zip(("issueDate", "nextUpdate"), life or make.LIFE, strict=True)
    }


def _sgx_report(*, attributes: bytes, signer: bytes, product: int, svn: int, report_data: bytes) -> bytes:
    body = bytes(16 + 4 + 12 + 16) + attributes + b"\x55" * 32 + bytes(32) + signer + bytes(32 + 64)
    body += product.to_bytes(2, "little") + svn.to_bytes(2, "little") + bytes(2 + 42 + 16)
    return body + report_data.ljust(64, b"\0")
