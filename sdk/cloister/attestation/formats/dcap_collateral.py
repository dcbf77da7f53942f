"""TCB evaluation of Intel platforms from stapled PCS collateral, offline.

Source: "Intel SGX and TDX PCS API, version 4", TCB info v3 and enclave identity v2, and the
"TCB status evaluation" of Intel's DCAP quote verification library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography import x509

from cloister.attestation import der
from cloister.attestation.certificates import (
    check_revocation,
    load_certificates,
    load_endorsements,
    refusing,
    verify_path,
)
from cloister.attestation.formats.collateral_layouts import WrittenCollateral
from cloister.attestation.formats.dcap import SGX_EXTENSION, SgxReport, verify_p256
from cloister.errors import EvidenceError
from cloister.jose import strict_json

__all__ = ["Collateral", "PlatformTcb", "TcbResult", "TdxModule"]

_SGX_ARC: Final = (42, 840, 113741, 1, 13, 1)
_OID_TCB, _OID_PCE_ID, _OID_FMSPC = (*_SGX_ARC, 2), (*_SGX_ARC, 3), (*_SGX_ARC, 4)
_COMPONENTS: Final = 16
_PCE_SVN_INDEX: Final = 17
_TCB_INFO_SGX_ONLY: Final = 2
_TCB_INFO_VERSIONS: Final = (_TCB_INFO_SGX_ONLY, 3)
_STATUSES: Final = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
)
_NEEDS_CONFIGURATION: Final = {
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDateConfigurationNeeded",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformTcb:
    """What a PCK certificate says about its platform (PCK certificate specification, section 3.5)."""

    components: tuple[int, ...]
    pce_svn: int
    pce_id: str
    fmspc: str

    @classmethod
    def parse(cls, pck: x509.Certificate) -> PlatformTcb:
        """Read the SGX extension.

        Raises:
            EvidenceError: It is missing or malformed.
        """
        with refusing("PCK certificate"):
            extension = next(e for e in pck.extensions if e.oid.dotted_string == SGX_EXTENSION).value
            if not isinstance(extension, x509.UnrecognizedExtension):
                raise TypeError
            outer = _entries(der.single(extension.value, der.SEQUENCE))
            tcb = _entries(outer[_OID_TCB])
            levels = [der.integer(tcb[(*_OID_TCB, index)]) for index in range(1, _PCE_SVN_INDEX + 1)]
            return cls(
                components=tuple(levels[:_COMPONENTS]),
                pce_svn=levels[_COMPONENTS],
                pce_id=outer[_OID_PCE_ID].hex(),
                fmspc=outer[_OID_FMSPC].hex(),
            )


def _entries(sequence: bytes) -> dict[tuple[int, ...], bytes]:
    entries: dict[tuple[int, ...], bytes] = {}
    for _, entry in der.items(sequence):
        (_, oid), (_, value) = list(der.items(entry))[:2]
        if entries.setdefault(der.object_identifier(oid), value) is not value:
            raise ValueError
    return entries


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxModule:
    """The identity of the TDX module in a TD report."""

    tee_tcb_svn: bytes
    mr_signer_seam: bytes
    seam_attributes: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbResult:
    """The outcome of an evaluation: status and open advisories, and how long the collateral holds."""

    status: str
    advisories: tuple[str, ...]
    tcb_date: str
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """Collateral whose signatures were verified."""

    tcb_info: Mapping[str, Any]
    qe_identity: Mapping[str, Any]
    crls: tuple[x509.CertificateRevocationList, ...]
    not_before: datetime
    not_after: datetime

    @classmethod
    def authenticate(
        cls, raw: bytes, anchors: Sequence[x509.Certificate], *, tee: str, at: datetime
    ) -> Collateral:
        """Authenticate collateral at a time: signatures, issuers, revocation and freshness.

        Raises:
            EvidenceError: Something of it is not genuine, stale or malformed.
        """
        with refusing("collateral"):
            written = WrittenCollateral.parse(raw)
            crls = load_endorsements(written.revocation_lists).crls
            if len(crls) != 2:  # noqa: PLR2004 (the two lists named above)
                raise ValueError
        bodies = {}
        spans = []
        for name, signed, identifier in (
            ("tcb_info", written.tcb_info, tee),
            ("qe_identity", written.qe_identity, "TD_QE" if tee == "TDX" else "QE"),
        ):
            chain = load_certificates([signed.issuer_chain])
            if not chain:
                raise EvidenceError(f"{name}: no issuer chain (step: collateral)")
            path = verify_path(chain[0], chain[1:], anchors, at=at, what=f"{name} signer")
            if not check_revocation(path.chain, crls, at=at):
                raise EvidenceError(f"{name}: no revocation list for its signer (step: collateral)")
            with refusing(name):
                verify_p256(chain[0].public_key(), signed.signature, signed.text, f"signature of {name}")
                body = strict_json.load_object(signed.text)
                # TCB info of version 2 has no identifier: it was for SGX alone.
                if body.get("id", "SGX" if body["version"] == _TCB_INFO_SGX_ONLY else None) != identifier:
                    raise ValueError
                span = tuple(datetime.fromisoformat(body[key]) for key in ("issueDate", "nextUpdate"))
            if not span[0] <= at <= span[1]:
                raise EvidenceError(
                    f"{name}: stale or not yet valid (step: collateral)",
                    hint="let the host staple fresh collateral: `cloister evidence fetch`",
                )
            bodies[name] = body
            spans.append(span)
        return cls(
            tcb_info=bodies["tcb_info"],
            qe_identity=bodies["qe_identity"],
            crls=crls,
            not_before=max(span[0] for span in spans),
            not_after=min(span[1] for span in spans),
        )

    def evaluate(self, platform: PlatformTcb, qe: SgxReport, module: TdxModule | None) -> TcbResult:
        """Evaluate the TCB of a platform, its quoting enclave and its TDX module.

        Raises:
            EvidenceError: The collateral is another platform's, the quoting enclave or module is not
                Intel's, no TCB level matches, or the TCB is revoked.
        """
        with refusing("collateral"):
            info = self.tcb_info
            if (
                info["fmspc"].lower() != platform.fmspc
                or info["pceId"].lower() != platform.pce_id
                or info["version"] not in _TCB_INFO_VERSIONS
                or info["tcbType"] != 0
            ):
                raise EvidenceError("fmspc: the collateral is another platform's (step: collateral)")
            level = _platform_level(info["tcbLevels"], platform, module)
            results = [level, _qe_level(self.qe_identity, qe)]
            if module is not None:
                results.append(_module_level(info, module))
            status = level["tcbStatus"]
            for other in results[1:]:
                status = _converge(status, other["tcbStatus"])
            if status not in _STATUSES:
                raise ValueError
            advisories = {name for result in results for name in result.get("advisoryIDs", ())}
            if not all(isinstance(name, str) for name in advisories):
                raise TypeError
            tcb_date = str(level["tcbDate"])
        if status == "Revoked":
            raise EvidenceError(
                "tcb_status: revoked (step: tcb)", hint="the platform must be updated or replaced"
            )
        return TcbResult(
            status=status,
            advisories=tuple(sorted(advisories)),
            tcb_date=tcb_date,
            not_before=self.not_before,
            not_after=self.not_after,
        )


def _platform_level(
    levels: Sequence[Mapping[str, Any]], platform: PlatformTcb, module: TdxModule | None
) -> Mapping[str, Any]:
    """The first level, newest first, that the platform reaches in every component."""
    for level in levels:
        tcb = level["tcb"]
        components = _sgx_components(tcb)
        if len(components) != _COMPONENTS:
            raise ValueError
        if platform.pce_svn < tcb["pcesvn"] or not _reaches(platform.components, components):
            continue
        if module is not None:
            components = [component["svn"] for component in tcb["tdxtcbcomponents"]]
            if len(components) != _COMPONENTS:
                raise ValueError
            # Where the module has an identity of its own, the first two bytes are judged there.
            first = 2 if module.tee_tcb_svn[1] else 0
            if not _reaches(module.tee_tcb_svn[first:], components[first:]):
                continue
        return level
    raise EvidenceError("tcb: the platform reaches no published TCB level (step: tcb)")


def _sgx_components(tcb: Mapping[str, Any]) -> list[int]:
    if "sgxtcbcomponents" in tcb:
        return [component["svn"] for component in tcb["sgxtcbcomponents"]]
    return [tcb[f"sgxtcbcomp{index:02}svn"] for index in range(1, _COMPONENTS + 1)]


def _reaches(actual: Sequence[int], least: Sequence[int]) -> bool:
    return all(a >= b for a, b in zip(actual, least, strict=True))


def _masked(actual: bytes, expected: str, mask: str) -> bool:
    wanted, bits = bytes.fromhex(expected), bytes.fromhex(mask)
    if not len(wanted) == len(bits) == len(actual):
        return False
    return all(a & m == w for a, m, w in zip(actual, bits, wanted, strict=True))


def _qe_level(identity: Mapping[str, Any], qe: SgxReport) -> Mapping[str, Any]:
    """The TCB level of the quoting enclave, after showing that it is Intel's."""
    # The identity writes miscselect as a number, so its bytes come in the other order.
    if not (
        _masked(qe.misc_select[::-1], identity["miscselect"], identity["miscselectMask"])
        and _masked(qe.attributes, identity["attributes"], identity["attributesMask"])
        and qe.mr_signer == bytes.fromhex(identity["mrsigner"])
        and qe.isv_prod_id == identity["isvprodid"]
    ):
        raise EvidenceError("quoting enclave: not the one Intel published (step: tcb)")
    return _by_isv_svn(identity["tcbLevels"], qe.isv_svn, "quoting enclave")


def _module_level(info: Mapping[str, Any], module: TdxModule) -> Mapping[str, Any]:
    """The TCB level of the TDX module, after showing that it is Intel's."""
    svn, version = module.tee_tcb_svn[0], module.tee_tcb_svn[1]
    identity = info["tdxModule"]
    level: Mapping[str, Any] = {"tcbStatus": "UpToDate"}
    if version:
        name = f"TDX_{version:02X}"
        matching = [entry for entry in info["tdxModuleIdentities"] if entry["id"].upper() == name]
        if len(matching) != 1:
            raise EvidenceError("TDX module: not one Intel published (step: tcb)")
        identity = matching[0]
        level = _by_isv_svn(identity["tcbLevels"], svn, "TDX module")
    if module.mr_signer_seam != bytes.fromhex(identity["mrsigner"]) or not _masked(
        module.seam_attributes, identity["attributes"], identity["attributesMask"]
    ):
        raise EvidenceError("TDX module: not one Intel published (step: tcb)")
    return level


def _by_isv_svn(levels: Sequence[Mapping[str, Any]], svn: int, what: str) -> Mapping[str, Any]:
    for level in levels:
        if svn >= level["tcb"]["isvsvn"]:
            return level
    raise EvidenceError(f"{what}: it reaches no published TCB level (step: tcb)")


def _converge(platform: str, component: str) -> str:
    """Join the platform's status with that of the quoting enclave or the TDX module."""
    if "Revoked" in {platform, component}:
        return "Revoked"
    if component == "OutOfDate":
        return "OutOfDateConfigurationNeeded" if platform in _NEEDS_CONFIGURATION else "OutOfDate"
    if component != "UpToDate":
        raise EvidenceError("tcb: a component's status is unknown (step: tcb)", hint="upgrade cloister")
    return platform
