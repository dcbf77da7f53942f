"""What BigQuery sends to a remote function, read from hostile bytes.

Source: https://cloud.google.com/bigquery/docs/remote-functions#input_format
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Final

from cloister.errors import ConfigurationError
from cloister.jose import strict_json
from cloister_gcp.types import is_text

__all__ = ["FUNCTION", "RemoteRequest"]

FUNCTION: Final = "function"
"""Member of `user_defined_context` that names the function, where an endpoint serves several."""
MAX_BODY_BYTES: Final = 32 * 1024 * 1024  # what Cloud Run takes
MAX_ROWS: Final = 250_000
MAX_ID_CHARS: Final = 1024
MAX_CONTEXT_CHARS: Final = 8 * 1024
_HINT: Final = "only BigQuery calls this endpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteRequest:
    """One request: some rows of one query.

    Attributes:
        request_id: The same over all repetitions of this request.
        caller: The job.
        function: What `user_defined_context` names; empty if it names none.
        calls: The arguments of each row.
    """

    request_id: str
    caller: str
    function: str
    calls: list[list[Any]] = field(repr=False)

    @classmethod
    def read(cls, stream: IO[bytes]) -> RemoteRequest:
        """Read a body; errors as `parse`."""
        # One byte more than allowed tells a longer body without reading it.
        return cls.parse(stream.read(MAX_BODY_BYTES + 1))

    @classmethod
    def parse(cls, body: bytes) -> RemoteRequest:
        """Read a body.

        Raises:
            ConfigurationError: BigQuery would not send this.
        """
        if len(body) > MAX_BODY_BYTES:
            raise ConfigurationError("the request is too large", hint="lower max_batching_rows")
        try:
            members = strict_json.load_object(body)
        except ValueError:
            raise ConfigurationError("this is no remote function request", hint=_HINT) from None
        request_id = _text(members, "requestId", MAX_ID_CHARS)
        if not request_id:
            raise ConfigurationError("the request has no requestId", hint=_HINT)
        calls = members.get("calls")
        if not isinstance(calls, list) or not all(isinstance(call, list) for call in calls):
            raise ConfigurationError("the request has no calls", hint=_HINT)
        if len(calls) > MAX_ROWS:
            raise ConfigurationError(
                f"a request has at most {MAX_ROWS} calls", hint="lower max_batching_rows"
            )
        return cls(
            request_id=request_id,
            caller=_text(members, "caller", MAX_ID_CHARS),
            function=_text(_context(members), FUNCTION, MAX_CONTEXT_CHARS),
            calls=calls,
        )


def _context(members: Mapping[str, Any]) -> Mapping[str, Any]:
    context = members.get("userDefinedContext") or {}
    if not isinstance(context, dict):
        raise ConfigurationError("the request's userDefinedContext is no object", hint=_HINT)
    return context


def _text(members: Mapping[str, Any], name: str, max_chars: int) -> str:
    value = members.get(name, "")
    if not isinstance(value, str) or len(value) > max_chars or not is_text(value):
        raise ConfigurationError(f"the request's {name} is not text", hint=_HINT)
    return value
