"""Errors as RFC 9457 problems. They carry a code and a way on, never what was sent."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from cloister.errors import (
    AttestationError,
    CloisterError,
    ConfigurationError,
    DeniedError,
    FunctionError,
    IdentityError,
    LimitError,
    OpenError,
    QuorumNeededError,
    UnavailableError,
)

__all__ = ["RefusedError", "error_members", "problem_of"]

# What the caller of the proxy is told. That the host refuses the proxy's own identity is no 401: the
# caller's token was good.
_STATUS: Final[dict[type[CloisterError], HTTPStatus]] = {
    ConfigurationError: HTTPStatus.BAD_REQUEST,
    OpenError: HTTPStatus.BAD_REQUEST,
    DeniedError: HTTPStatus.FORBIDDEN,
    QuorumNeededError: HTTPStatus.FORBIDDEN,
    LimitError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    FunctionError: HTTPStatus.UNPROCESSABLE_ENTITY,
    AttestationError: HTTPStatus.BAD_GATEWAY,
    IdentityError: HTTPStatus.BAD_GATEWAY,
    UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
}


class RefusedError(Exception):
    """The proxy itself turns a request away; the host never heard of it.

    Args:
        status: Of the response.
        code: Its stable name, after `proxy-`.
        title: What is wrong.
        hint: What to do about it.
        retryable: Whether the same request may succeed later.
    """

    def __init__(
        self, status: HTTPStatus, code: str, title: str, *, hint: str = "", retryable: bool = False
    ) -> None:
        super().__init__(title)
        self.status = status
        self.code = f"proxy-{code}"
        self.title = title
        self.hint = hint
        self.retryable = retryable


def problem_of(error: CloisterError | RefusedError, *, request_id: str) -> dict[str, Any]:
    """The members of a problem.

    Args:
        error: What happened.
        request_id: Stands in the proxy's log; for errors that the host has no name for.
    """
    members: dict[str, Any]
    if isinstance(error, RefusedError):
        members = {"code": error.code, "retryable": error.retryable, "hint": error.hint, "correlation_id": ""}
        title, status = error.title, error.status
    else:
        members = error_members(error)
        title = members.pop("message")
        known = (_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
        status = next(known, HTTPStatus.BAD_GATEWAY)
    members["correlation_id"] = members["correlation_id"] or request_id
    return {
        "type": f"urn:cloister:error:{members['code']}",
        "title": title,
        "status": int(status),
        **members,
    }


def error_members(error: CloisterError) -> dict[str, Any]:
    """An error's own members."""
    members: dict[str, Any] = {
        "code": error.code,
        "message": str(error.args[0]),
        "retryable": error.retryable,
        "hint": error.hint,
        "correlation_id": error.correlation_id,
    }
    if isinstance(error, QuorumNeededError):
        members["proposal_id"] = error.proposal_id
    if error.receipt is not None:
        members["receipt"] = dict(error.receipt)
    return members
