"""The one table from errors to HTTP (RFC 9457), for what is answered in the clear.

Once a request has opened, every outcome is a sealed reply with status 200; see `dispatch.py`.
"""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.responses import Response

from cloister.errors import (
    AttestationError,
    CloisterError,
    ConfigurationError,
    DeniedError,
    EvidenceError,
    FunctionError,
    IdentityError,
    LimitError,
    OpenError,
    QuorumNeededError,
    UnavailableError,
)

__all__ = ["STATUS", "problem"]

STATUS: Final[dict[type[CloisterError], int]] = {
    ConfigurationError: 400,
    OpenError: 400,
    EvidenceError: 400,
    AttestationError: 403,
    IdentityError: 401,
    DeniedError: 403,
    QuorumNeededError: 403,
    LimitError: 413,
    FunctionError: 422,
    UnavailableError: 503,
}


def problem(error: CloisterError) -> Response:
    """An error in the clear. It is a hint for humans and load balancers; clients believe only seals."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    body = {
        "type": f"urn:cloister:error:{error.code}",
        "title": str(error.args[0]),
        "status": status,
        "code": error.code,
        "hint": error.hint,
        "retryable": error.retryable,
    }
    return Response(msgspec.json.encode(body), status_code=status, media_type="application/problem+json")
