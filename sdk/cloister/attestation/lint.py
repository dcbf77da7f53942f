"""Find appraisal policies that accept too much."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from cloister.attestation.appraise import HARDWARE_IDENTITY
from cloister.attestation.evidence import Format
from cloister.attestation.policy import UNSEAL_PROVIDERS, AppraisalPolicy, Reference, TeePolicy

__all__ = ["Finding", "lint"]

_MEASURED_BOOT: Final = (
    frozenset({"pcr4", "pcr7"}),
    frozenset({"pcr4", "pcr11"}),
    frozenset({"pcr7", "pcr11"}),
    frozenset({"pcr4", "pcr8", "pcr9"}),
)
"""PCRs from 8 on say nothing unless it is known what extended them: the boot loader (4) or its signer (7)."""

_IDENTITY: Final[Mapping[Format, tuple[frozenset[str], ...]]] = {
    Format.NITRO: (frozenset({"pcr0"}), frozenset({"pcr8"})),
    Format.NITRO_TPM: _MEASURED_BOOT,
    Format.SEV_SNP: (frozenset({"measurement"}), frozenset({"id_key_digest"})),
    Format.TDX: (frozenset({"mr_td", "rtmr0", "rtmr1", "rtmr2"}),),
    Format.SGX: (frozenset({"mr_enclave"}), frozenset({"mr_signer", "isv_prod_id"})),
    Format.TPM: _MEASURED_BOOT,
    Format.AZURE_VTPM: tuple(
        frozenset({hardware, *pcrs}) for hardware in sorted(HARDWARE_IDENTITY) for pcrs in _MEASURED_BOOT
    ),
    Format.AZURE_MAA: (
        frozenset({"x-ms-sevsnpvm-launchmeasurement"}),
        frozenset({"x-ms-isolation-tee.x-ms-sevsnpvm-launchmeasurement"}),
        frozenset({"x-ms-sgx-mrenclave"}),
        frozenset({"tdx_mrtd"}),
        frozenset({"x-ms-isolation-tee.tdx_mrtd"}),
        frozenset({"x-ms-sevsnpvm-hostdata"}),
    ),
    Format.GCP_CONFIDENTIAL_SPACE: (frozenset({"submods.container.image_digest"}),),
    Format.SIMULATED: (frozenset({"measurement"}),),
}
"""Which claims, together, say what code runs. One of the sets must be in every reference value."""

_REQUIRE: Final[Mapping[Format, tuple[str, ...]]] = {
    Format.AZURE_MAA: ("iss", "x-ms-attestation-type"),
    Format.GCP_CONFIDENTIAL_SPACE: ("hwmodel", "aud", "secboot"),
    Format.SEV_SNP: ("vmpl", "policy.migrate_ma"),
}
"""Claims without which a kind of evidence accepts more than its name promises."""

_MINIMUM: Final[Mapping[Format, tuple[str, ...]]] = {
    Format.SEV_SNP: ("reported_tcb.bootloader", "reported_tcb.snp", "reported_tcb.microcode"),
}
_BAD_STATUS: Final = {"OutOfDate", "OutOfDateConfigurationNeeded"}
_MIXED_CASE_HEX: Final = re.compile(r"(?=.*[A-F])[0-9A-Fa-f]{32,}")
_MAX_ACCEPTED: Final = 8
_NOT_ATTESTED: Final = ("pkcs11", "azure-keyvault")
"""Unseal providers that compare nothing with what attests to a host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One weakness of a policy: where it is, what it lets through, and what to do."""

    severity: Literal["error", "warning"]
    where: str
    problem: str
    remedy: str


def lint(policy: AppraisalPolicy) -> tuple[Finding, ...]:
    """Look for what the policy accepts and probably should not."""
    return (
        *_environment(policy),
        *(finding for format_, tee in policy.tees.items() for finding in _tee(format_, tee)),
        *_config(policy),
    )


def _error(where: str, problem: str, remedy: str) -> Finding:
    return Finding(severity="error", where=where, problem=problem, remedy=remedy)


def _warning(where: str, problem: str, remedy: str) -> Finding:
    return Finding(severity="warning", where=where, problem=problem, remedy=remedy)


def _environment(policy: AppraisalPolicy) -> Iterator[Finding]:
    if policy.environment != "hardware":
        yield _error(
            "environment",
            f"{policy.environment} evidence proves nothing about the machine",
            'use environment = "hardware" outside development',
        )
    if policy.deployment is None:
        yield _error(
            "deployment",
            "any deployment is accepted: a genuine image under somebody else's root passes",
            "pin the deployment that `cloister host init` printed",
        )
    if policy.not_after is None:
        yield _warning("not_after", "the policy never expires", "give it a date on which it is reviewed")


def _tee(format_: Format, tee: TeePolicy) -> Iterator[Finding]:
    where = f"tee.{format_}"
    if tee.allow_debug:
        yield _error(f"{where}.allow_debug", "debug memory can be read by the operator", "remove it")
    for reference in tee.references:
        yield from _reference(format_, reference, f"{where}.reference {reference.name!r}")
    required = {name for reference in tee.references for name in reference.claims} | tee.require.keys()
    for name in _REQUIRE.get(format_, ()):
        if name not in required:
            yield _warning(
                f"{where}.require", f"{name} may be anything", f"require the values of {name} you run on"
            )
    for name in _MINIMUM.get(format_, ()):
        if name not in tee.minimum:
            yield _warning(
                f"{where}.minimum", f"{name} may be any age: old firmware passes", f"set a minimum for {name}"
            )
    for status in sorted(_BAD_STATUS & set(tee.tcb_status or ())):
        yield _error(f"{where}.tcb_status", f"{status} platforms have known vulnerabilities", "remove it")
    if len(tee.references) > _MAX_ACCEPTED:
        yield _warning(
            f"{where}.reference",
            f"{len(tee.references)} images are accepted at once: old ones stay trusted",
            "remove the images that no longer run, or give them a not_after",
        )


def _reference(format_: Format, reference: Reference, where: str) -> Iterator[Finding]:
    if not any(identity <= reference.claims.keys() for identity in _IDENTITY[format_]):
        wanted = " or ".join(" + ".join(sorted(identity)) for identity in _IDENTITY[format_])
        yield _error(where, "it does not say what code runs", f"add {wanted}")
    for name, accepted in reference.claims.items():
        yield from _values(f"{where}: {name}", accepted)


def _values(where: str, accepted: tuple[Any, ...]) -> Iterator[Finding]:
    for value in accepted:
        if isinstance(value, str) and _MIXED_CASE_HEX.fullmatch(value):
            yield _error(where, "hex in upper case never matches", "write it in lower case")
        elif isinstance(value, str) and value and not value.strip("0"):
            yield _error(
                where, "all zeros means unmeasured or debug", "use the measurement of a release build"
            )
    if not accepted:
        yield _error(where, "an empty list matches nothing", "name a value or remove the claim")


def _config(policy: AppraisalPolicy) -> Iterator[Finding]:
    if policy.environment != "hardware":
        return
    accepted = policy.config
    yield from _unseal(accepted.get("unseal", ()))
    if set(accepted.get("debug", ())) - {False}:
        yield _error("config.debug", "debug switches let plaintext out", "remove them")
    if accepted.get("sandbox.missing"):
        yield _warning(
            "config.sandbox.missing", "tenant code runs with fewer walls", "run on a kernel that has them"
        )


def _unseal(accepted: tuple[Any, ...]) -> Iterator[Finding]:
    where = "config.unseal"
    if "file" in accepted:
        yield _error(where, "file keeps the root key beside the data", "use a KMS, an HSM or a TPM")
    for name in accepted:
        if name not in UNSEAL_PROVIDERS and name != "file":
            yield _error(where, f"there is no unseal provider {name!r}", "look at docs/unseal.md")
    for name in _NOT_ATTESTED:
        if name in accepted and accepted != UNSEAL_PROVIDERS:
            yield _warning(
                where,
                f"{name} gives the root key to whoever has its credentials, attested or not",
                "give them to machines of this image alone, or use aws-kms, tpm2 or shamir",
            )
