"""Every error Cloister raises, in one tree.

    CloisterError
    ├── ConfigurationError      the settings, a manifest or an argument cannot be used
    ├── AttestationError        the host could not be shown to be the one that was meant
    │   ├── EvidenceError       the evidence is not genuine, not fresh or not readable
    │   ├── AppraisalError      the evidence is genuine, but the policy does not accept what it says
    │   └── LogError            the audit log was rolled back, forked or does not prove what it says
    ├── IdentityError           the caller could not be authenticated
    ├── DeniedError             the caller is known and has no grant for this act
    ├── QuorumNeededError       the act is granted, but waits for others to approve this very request
    ├── OpenError               a ciphertext did not open; one opaque error for tag, key and context
    ├── FunctionError           a confidential function failed or broke its declared output class
    ├── HandlerError            a FaaS handler failed; what it raised is held back, since it may carry data
    ├── LimitError              a size, rate, budget or lifetime limit was reached
    └── UnavailableError        the host or something behind it cannot answer now

No message carries a plaintext, a token, a key, a credential or the value of a claim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AppraisalError",
    "AttestationError",
    "CloisterError",
    "ConfigurationError",
    "DeniedError",
    "EvidenceError",
    "FunctionError",
    "HandlerError",
    "IdentityError",
    "LimitError",
    "LogError",
    "OpenError",
    "QuorumNeededError",
    "UnavailableError",
    "error_from_code",
]


class CloisterError(Exception):
    """Base of every error raised by Cloister.

    Attributes:
        code: Stable machine-readable name, the same on every wire.
        retryable: Whether the same call may succeed later, unchanged.
        hint: What the reader can do next.
        correlation_id: Identifier under which the host logged the failure, if it has one.
        receipt: The host's receipt of a refusal, for `cloister.receipts.Receipt.from_json`.
    """

    code: ClassVar[str] = "error"
    retryable: bool = False
    receipt: Mapping[str, Any] | None = None

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        correlation_id: str = "",
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.correlation_id = correlation_id
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        parts = [str(self.args[0])]
        if self.hint:
            parts.append(f"({self.hint})")
        if self.correlation_id:
            parts.append(f"[{self.correlation_id}]")
        return " ".join(parts)


class ConfigurationError(CloisterError):
    """The settings, a manifest or an argument cannot be used."""

    code = "configuration"


class AttestationError(CloisterError):
    """The host could not be shown to be the one that was meant."""

    code = "attestation"


class EvidenceError(AttestationError):
    """The evidence is not genuine, not fresh or not readable."""

    code = "evidence"


class AppraisalError(AttestationError):
    """The evidence is genuine, but the appraisal policy does not accept what it says."""

    code = "appraisal"


class LogError(AttestationError):
    """The deployment's audit log was rolled back or forked, or does not prove what it says."""

    code = "log"


class IdentityError(CloisterError):
    """The caller could not be authenticated."""

    code = "identity"


class DeniedError(CloisterError):
    """The caller is authenticated and has no grant for this act, or the thing does not exist."""

    code = "denied"


class QuorumNeededError(CloisterError):
    """The act is granted, but its tenant wants others to approve this very request first.

    Once enough of them have, the same request, sent again by the same principal, is carried out once.

    Attributes:
        proposal_id: What the approvers are given: `cloister proposal approve ID`.
    """

    code = "quorum-needed"

    def __init__(
        self,
        message: str,
        *,
        proposal_id: str = "",
        hint: str = "",
        correlation_id: str = "",
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message, hint=hint, correlation_id=correlation_id, retryable=retryable)
        self.proposal_id = proposal_id


class OpenError(CloisterError):
    """A ciphertext did not open.

    Wrong tag, wrong key, wrong context and malformed input look the same on purpose.
    """

    code = "open"

    def __init__(
        self,
        message: str = "the value did not open",
        *,
        hint: str = "",
        correlation_id: str = "",
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message, hint=hint, correlation_id=correlation_id, retryable=retryable)


class FunctionError(CloisterError):
    """A confidential function failed, or broke its declared output class."""

    code = "function"


class HandlerError(CloisterError):
    """A FaaS handler failed; what it raised is held back, since it may carry data. Never on the wire."""

    code = "handler"


class LimitError(CloisterError):
    """A size, rate, budget or lifetime limit was reached."""

    code = "limit"


class UnavailableError(CloisterError):
    """The host, or something behind it, cannot answer now."""

    code = "unavailable"
    retryable = True


_BY_CODE: dict[str, type[CloisterError]] = {
    cls.code: cls
    for cls in (
        ConfigurationError,
        AttestationError,
        EvidenceError,
        AppraisalError,
        LogError,
        IdentityError,
        DeniedError,
        OpenError,
        QuorumNeededError,
        FunctionError,
        LimitError,
        UnavailableError,
    )
}


def error_from_code(
    code: str,
    message: str,
    *,
    hint: str = "",
    correlation_id: str = "",
    retryable: bool = False,
    proposal_id: str = "",
) -> CloisterError:
    """Rebuild the error a host sent as `code`; an unknown code gives the base class."""
    cls = _BY_CODE.get(code, CloisterError)
    error = cls(message, hint=hint, correlation_id=correlation_id, retryable=retryable)
    if isinstance(error, QuorumNeededError):
        error.proposal_id = proposal_id
    return error
