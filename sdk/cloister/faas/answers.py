"""What a handler gives back: as JSON, as an HTTP body, or an error of ours as a problem (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final, NamedTuple

from cloister.envelope import Sealed
from cloister.errors import (
    AttestationError,
    CloisterError,
    ConfigurationError,
    DeniedError,
    FunctionError,
    IdentityError,
    LimitError,
    OpenError,
    UnavailableError,
)

__all__ = ["PROBLEM_TYPE", "Problem", "content_type", "plain", "problem"]

PROBLEM_TYPE: Final = "application/problem+json"

# What the caller of the function is told. An error in how this function is set up is ours, not theirs.
_STATUS: Final[dict[type[CloisterError], int]] = {
    OpenError: 400,
    DeniedError: 403,
    LimitError: 413,
    FunctionError: 422,
    ConfigurationError: 500,
    IdentityError: 500,
    AttestationError: 503,
    UnavailableError: 503,
}


class Problem(NamedTuple):
    """An error for whoever waits for HTTP; the document has the type `PROBLEM_TYPE`."""

    status: int
    document: dict[str, Any]


def plain(result: Any) -> Any:
    """A `Reply` as JSON: value and receipt; anything else as it is."""
    from cloister.reply import BatchReply, Reply  # noqa: PLC0415 (loaded by the call that gave one)

    if isinstance(result, Reply):
        out = {"value": result.value, "receipt": result.receipt.id}
        return out if result.delivery_id is None else {**out, "delivery_id": result.delivery_id}
    if isinstance(result, BatchReply):
        errors = {str(row): code for row, code in result.errors.items()}
        return {"values": result.values, "errors": errors, "receipt": result.receipt.id}
    return result


def content_type(body: Any) -> str:
    """The media type of a body that `plain` gave."""
    if isinstance(body, bytes):
        return "application/octet-stream"
    if isinstance(body, Sealed):
        return "application/jose"
    return "text/plain; charset=utf-8" if isinstance(body, str) else "application/json"


def problem(error: CloisterError) -> Problem:
    """An error as a problem; it carries no data, as no error of Cloister does."""
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
    is_ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    document = {
        "type": f"urn:cloister:error:{error.code}",
        "title": HTTPStatus(status).phrase if is_ours else str(error.args[0]),
        "status": status,
        "code": error.code,
        "retryable": error.retryable,
    }
    return Problem(status, document)
