"""The second step: is what the evidence says acceptable?"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cloister.attestation.binding import require_binding, require_nonce
from cloister.attestation.evidence import AuthenticEvidence
from cloister.attestation.policy import AppraisalPolicy, Reference, TeePolicy, lookup, same
from cloister.errors import AppraisalError, EvidenceError

__all__ = ["HARDWARE_IDENTITY", "Appraisal", "appraise", "appraise_claims", "appraise_freshness"]

HARDWARE_IDENTITY: Final = frozenset({"hardware.measurement", "hardware.id_key_digest", "hardware.mr_td"})
"""Claims that say whose confidential VM it is; on Azure, the paravisor that runs the TPM."""
_VOUCHED_BY_HARDWARE: Final = frozenset({"hcl-sev-snp", "hcl-tdx"})
CLOCK_SKEW: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraisal:
    """Proof that an appraisal passed.

    Attributes:
        reference: Name of the reference values that matched; empty if none were asked for.
        checks: What was compared, in order.
        not_checked: What the policy left open.
    """

    reference: str
    checks: tuple[str, ...]
    not_checked: tuple[str, ...]


def appraise(
    evidence: AuthenticEvidence, policy: AppraisalPolicy, *, statement: bytes, nonce: bytes, at: datetime
) -> Appraisal:
    """Appraise genuine evidence that must speak of `statement` and answer `nonce`.

    Raises:
        EvidenceError: It is stale, answers another challenge or speaks of other keys.
        AppraisalError: A claim matches no reference value, or there are none.
    """
    # (1) Freshness and binding: it answers our challenge and speaks of these keys.
    require_binding(evidence, statement=statement, nonce=nonce)
    # (2) The claims.
    appraisal = appraise_claims(evidence, policy, at=at)
    return Appraisal(
        reference=appraisal.reference,
        checks=("statement and nonce", *appraisal.checks),
        not_checked=appraisal.not_checked,
    )


def appraise_freshness(
    evidence: AuthenticEvidence, *, nonce: bytes | None, allow_debug: bool, at: datetime
) -> Appraisal:
    """Appraise without a policy: freshness and debug only. For tools that show evidence to a person.

    Raises:
        EvidenceError: It is from the future or answers another challenge.
        AppraisalError: It is a debug environment and `allow_debug` is false.
    """
    checks, not_checked = ["issue time"], ["reference values: no policy was given"]
    _require_not_from_the_future(evidence, at)
    if nonce is None:
        not_checked.append("nonce: none was given, so the document may be a replay")
    else:
        require_nonce(evidence, nonce)
        checks.append("nonce")
    if not allow_debug:
        _refuse_debug(evidence)
        checks.append("debug")
    else:
        not_checked.append("debug: allowed by the caller")
    return Appraisal(reference="", checks=tuple(checks), not_checked=tuple(not_checked))


def appraise_claims(evidence: AuthenticEvidence, policy: AppraisalPolicy, *, at: datetime) -> Appraisal:
    """Appraise everything but the binding; fail closed at every step.

    Raises:
        EvidenceError: The evidence is too old or from the future.
        AppraisalError: The policy does not accept what it says.
    """
    checks: list[str] = []
    not_checked: list[str] = []
    # (1) The policy itself is valid now, and knows this kind of evidence.
    policy.require_valid(at)
    tee = policy.tee(evidence.format)
    # (2) The environment comes from the anchor, never from the evidence.
    if evidence.environment != policy.environment:
        raise AppraisalError(
            f"environment: evidence of this kind is not accepted, the policy wants {policy.environment} "
            "(step: environment)",
            hint="check CLOISTER_URL; a development host never satisfies a production policy",
        )
    checks.append("environment")
    # (3) Age.
    _require_not_from_the_future(evidence, at)
    if tee.max_age is None:
        not_checked.append("age: the policy sets no max_age_seconds")
    elif evidence.issued_at is None:
        not_checked.append("age: this format carries no time; freshness rests on the nonce")
    elif at - evidence.issued_at > tee.max_age:
        raise EvidenceError(
            "issued_at: the evidence is older than the policy allows (step: age)",
            hint="ask the host for fresh evidence, or raise max_age_seconds",
        )
    else:
        checks.append("age")
    # (4) Debug.
    if not tee.allow_debug:
        _refuse_debug(evidence)
        checks.append("debug")
    else:
        not_checked.append("debug: the policy allows it")
    # (5) TCB status and advisories, minimum versions, required claims.
    if tee.tcb_status is not None:
        _check_tcb_status(evidence, tee)
        checks.append("tcb_status")
    _check_minimum(evidence, tee)
    _check_required(evidence, tee)
    checks += [f"minimum {name}" for name in tee.minimum] + [f"required {name}" for name in tee.require]
    # (6) Reference values: one set must match whole.
    reference = _match_reference(evidence, tee, at)
    checks.append("reference values")
    # (7) What vouches for the evidence is itself one that was meant.
    if str(evidence.claims.get("ak")) in _VOUCHED_BY_HARDWARE:
        _require_hardware_identity(reference.claims.keys() | tee.require.keys())
        checks.append("hardware that vouches for the TPM")
    return Appraisal(reference=reference.name, checks=tuple(checks), not_checked=tuple(not_checked))


def _require_not_from_the_future(evidence: AuthenticEvidence, at: datetime) -> None:
    if evidence.issued_at is not None and evidence.issued_at - at > CLOCK_SKEW:
        raise EvidenceError(
            "issued_at: the evidence is from the future (step: age)", hint="check both clocks"
        )


def _refuse_debug(evidence: AuthenticEvidence) -> None:
    if evidence.debug:
        raise AppraisalError(
            "debug: this environment can be read or changed from outside (step: debug)",
            hint="start the host without debug; for experiments only, allow debug by name",
        )


def _check_tcb_status(evidence: AuthenticEvidence, tee: TeePolicy) -> None:
    status = evidence.claims.get("tcb_status")
    if status is None:
        raise AppraisalError(
            "tcb_status: it could not be evaluated (step: tcb)",
            hint="let the host staple the vendor's collateral: `cloister evidence fetch`",
        )
    if status not in (tee.tcb_status or ()):
        raise AppraisalError(
            "tcb_status: the policy does not accept it (step: tcb)",
            hint="update firmware and microcode of the platform, or accept the status by name in tcb_status",
        )
    advisories = evidence.claims.get("advisories", ())
    if not set(advisories) <= tee.advisories:
        raise AppraisalError(
            "advisories: an open security advisory is not accepted by name (step: tcb)",
            hint="update the platform, or list the advisory under advisories once it is mitigated",
        )


def _check_minimum(evidence: AuthenticEvidence, tee: TeePolicy) -> None:
    for name, least in tee.minimum.items():
        actual = lookup(evidence.claims, name)
        if not isinstance(actual, int) or isinstance(actual, bool) or actual < least:
            raise AppraisalError(
                f"{name}: absent or below the policy's minimum (step: minimum)",
                hint="update the platform or the image; lower the minimum only with a reason",
            )


def _check_required(evidence: AuthenticEvidence, tee: TeePolicy) -> None:
    for name, accepted in tee.require.items():
        actual = lookup(evidence.claims, name)
        if not any(same(actual, value) for value in accepted):
            raise AppraisalError(
                f"{name}: absent or not a required value (step: require)",
                hint="compare `cloister evidence verify --json` with the policy",
            )


def _require_hardware_identity(named: AbstractSet[str]) -> None:
    """Refuse to take any confidential VM's word for a TPM: it could vouch for a key and PCRs of its own."""
    if not named & HARDWARE_IDENTITY:
        raise AppraisalError(
            "hardware.measurement: the policy does not say which confidential VM may vouch for the TPM "
            "(step: hardware)",
            hint=f"add one of {', '.join(sorted(HARDWARE_IDENTITY))} to the reference values",
        )


def _match_reference(evidence: AuthenticEvidence, tee: TeePolicy, at: datetime) -> Reference:
    valid = [reference for reference in tee.references if reference.valid_at(at)]
    if not valid:
        raise AppraisalError(
            "reference values: none is valid at this time (step: reference)",
            hint="add the measurements of the running image to the policy",
        )
    mismatches = [reference.first_mismatch(evidence.claims) for reference in valid]
    for reference, mismatch in zip(valid, mismatches, strict=True):
        if mismatch is None:
            return reference
    raise AppraisalError(
        f"{mismatches[-1]}: no set of reference values matches (step: reference)",
        hint="if this image is meant to run, add its measurements; if not, do not talk to it",
    )
